"""The mathematics of the adapter family: functions from tensors to tensors."""
