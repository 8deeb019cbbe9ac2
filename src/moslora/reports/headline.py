"""What a chapter leads with: the number that matters, and the sentence that it begins."""

from collections.abc import Sequence
from statistics import fmean

from moslora.comparison.verdict import AVERAGE, claim, is_shown, loss_text
from moslora.evaluation.recording import chance_of, hardly_answers, units_of
from moslora.evaluation.scores import perplexity
from moslora.records import ComparisonRecord, Difference, EvaluationRecord, RunRecord
from moslora.reports.reading import StoredRun
from moslora.reports.side_by_side import FINAL, alike, differing, finals
from moslora.reports.wording import guessed, percent, points

Headline = tuple[str, str]  # the number (may be empty), and the rest of the sentence
NAMED = 3  # arms named in a sentence; more are counted


def of_comparison(record: ComparisonRecord) -> Headline:
    """What is shown against the baseline, or how many arms are shown to differ from it."""
    task = AVERAGE if any(found.task == AVERAGE for found in record.differences) else next(iter(record.tasks), "")
    found = [difference for difference in record.differences if difference.task == task]
    where = f"the average of {len(record.tasks)} tasks" if len(record.tasks) > 1 else next(iter(record.tasks), "")
    if not record.tasks and record.loss_differences:
        number, rest = _of_losses(record.loss_differences)
    else:
        number, rest = _one(found[0], where) if len(found) == 1 else _many(found, where) if found else _none(record)
    return number, rest + _doubts(record, found) + ("" if record.is_complete else " The comparison is not complete.")


def of_runs(runs: Sequence[StoredRun]) -> Headline:
    """The accuracy after training, else the perplexity on validation data, else the training loss."""
    if len(runs) > 1:
        return _of_several(runs)
    record = runs[0].record
    found = _final(record)
    if not found:
        return _of_held_out(record) or _of_loss(record)
    before = [one for one in record.evaluations if one.when == "before" and one.agreement is None]
    if len(found) > 1:
        start = f", {_percent(_mean(before))} before training" if len(before) == len(found) else ""
        return _percent(_mean(found)), f"right on average over {len(found)} tasks{start}."
    (one,) = found
    interval = f"(95 % interval {percent(one.low)} to {percent(one.high)})"
    start = next((f", {_percent(had.accuracy)} before training" for had in before if had.task == one.task), "")
    chance = chance_of(one)
    guessing = "" if chance is None else f"; guessing gets {guessed(chance)}"
    doubt = " The model does not answer in these words, so this says little." if hardly_answers(one) else ""
    return _percent(one.accuracy), f"{_of_what(one)} {interval}{start}{guessing}.{doubt}"


def perplexity_text(loss: float) -> str:
    """The perplexity of a loss per token in three figures, or whole where it is large."""
    value = perplexity(loss)
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _none(record: ComparisonRecord) -> Headline:
    return "", f"{len(record.arms)} arms, none of which can be compared with {record.baseline} yet."


def _one(found: Difference, where: str) -> Headline:
    number, interval = points(found.mean, None, None).text, points(found.mean, found.low, found.high).remark
    return f"{number}\N{NO-BREAK SPACE}points", _told(found, f"on {where}", interval, is_claimed=claim(found) != 0)


def _told(found: Difference, where: str, interval: str, *, is_claimed: bool) -> str:
    word = "above" if found.mean > 0 else "below" if found.mean < 0 else "level with"
    seeds = f"{found.seeds} seed{'' if found.seeds == 1 else 's'}"
    told = f"{interval} (95 % interval, {seeds})" if interval else seeds
    shown = "a difference is shown" if is_claimed else "no difference is shown"
    shown = "one seed shows nothing" if found.seeds == 1 else shown
    return f"{found.arm} is {word} {found.baseline} {where}, {told}: {shown}."


def _many(found: Sequence[Difference], where: str) -> Headline:
    against = {one.baseline for one in found}
    baseline = against.pop() if len(against) == 1 else "their baseline"
    better, worse = ([one.arm for one in found if claim(one) == sign] for sign in (1, -1))
    alone = sum(one.seeds == 1 for one in found)
    rest = len(found) - len(better) - len(worse) - alone
    are = "is" if len(better) == 1 else "are"
    parts = [f"{are} shown to be better than {baseline} on {where}{_named(better)}"]
    parts += [f"{len(worse)} to be worse{_named(worse)}"] if worse else []
    parts += [f"for {rest} no difference is shown"] if rest else []
    parts += [f"{alone} {'has' if alone == 1 else 'have'} one seed, which cannot tell"] if alone else []
    return f"{len(better)} of {len(found)} arms", ", ".join(parts) + "."


def _of_losses(found: Sequence[Difference]) -> Headline:
    """How much higher the loss of held-out samples is, or how many of several differences show a lower one."""
    if len(found) == 1:
        return _one_loss(found[0])
    against = {one.baseline for one in found}
    baseline = against.pop() if len(against) == 1 else "its baseline"
    lower = [f"{one.arm} on {one.task}" for one in found if is_shown(one) and one.mean < 0]
    higher = [f"{one.arm} on {one.task}" for one in found if is_shown(one) and one.mean > 0]
    parts = [f"of loss against {baseline} are shown to be lower{_named(lower)}"]
    parts += [f"{len(higher)} to be higher{_named(higher)}"] if higher else []
    return f"{len(lower)} of {len(found)} differences", ", ".join(parts) + "."


def _one_loss(found: Difference) -> Headline:
    interval = "" if found.low is None or found.high is None else f"{loss_text(found.low)} to {loss_text(found.high)}"
    number = f"{'+' if found.mean > 0 else ''}{loss_text(found.mean)}\N{NO-BREAK SPACE}nats"
    return number, _told(found, f"in loss per token on {found.task}", interval, is_claimed=is_shown(found))


def _named(arms: Sequence[str]) -> str:
    more = f" and {len(arms) - NAMED} more" if len(arms) > NAMED else ""
    return f" ({', '.join(arms[:NAMED])}{more})" if arms else ""


def _doubts(record: ComparisonRecord, found: Sequence[Difference]) -> str:
    """That what is claimed may come from learning rates that were best at an edge of those tried, or not told apart."""
    claimed = {arm for one in found if claim(one) for arm in (one.arm, one.baseline)}
    doubted = [arm.arm for arm in record.arms if arm.arm in claimed and arm.doubts]
    return f" Better learning rates might change that for {_listed(doubted)}." if doubted else ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _of_several(runs: Sequence[StoredRun]) -> Headline:
    """The range of what was measured alike, else each run's own number."""
    words = [one.word for one in differing(runs)]
    differ = f" The runs differ in {_listed(words)}." if words else ""
    found = alike(runs)
    if found:
        values = [one.accuracy for one in found]
        number, what = f"{percent(min(values))} to {_percent(max(values))}", _of_what(found[0])
        own = ", ".join(f"{run.label} {percent(value)}" for run, value in zip(runs, values, strict=True))
        what = f"{what} ({own})"
    elif _share_validation(runs):
        losses = [run.record.validation_loss or 0.0 for run in runs]
        number, what = f"{min(losses):.3f} to {max(losses):.3f}", f"validation loss of {len(runs)} runs"
    else:
        own = "; ".join(_own(run) for run in runs)
        return "", f"{len(runs)} runs, which share no task and no validation data to be compared on: {own}.{differ}"
    return (
        number,
        f"{what}.{differ} Single runs differ by chance too: to compare methods, give `moslora compare` several seeds.",
    )


def _share_validation(runs: Sequence[StoredRun]) -> bool:
    """Whether all have a validation loss, of the same data in the tokens of the same model."""
    recipes = [run.record.recipe for run in runs]
    data = [(recipe.get("data"), (recipe.get("model") or {}).get("path")) for recipe in recipes]
    return all(one == data[0] for one in data) and all(run.record.validation_loss is not None for run in runs)


def _own(run: StoredRun) -> str:
    """A run's own number in a few words."""
    found = finals(run.record)
    if found:
        return f"{run.label} {_percent(found[0].accuracy)} {_of_what(found[0])}, {found[0].when}"
    if run.record.validation_loss is not None:
        return f"{run.label} has a validation loss of {run.record.validation_loss:.3f}"
    return f"{run.label} has no evaluation after training"


def _final(record: RunRecord) -> list[EvaluationRecord]:
    """The first evaluation of each task of the trained adapter."""
    found: dict[str, EvaluationRecord] = {}
    for one in finals(record):
        found.setdefault(one.task, one)
    return [*found.values()]


def _of_held_out(record: RunRecord) -> Headline | None:
    """The perplexity on the first held-out samples after training, and before it; None without any."""
    found = next((one for moment in FINAL for one in record.losses if one.when == moment), None)
    if found is None:
        return None
    before = next((one for one in record.losses if (one.task, one.when) == (found.task, "before")), None)
    start = f", {perplexity_text(before.loss)} before training" if before else ""
    told = f"perplexity on {found.samples:,} held-out samples of {found.task} (loss {found.loss:.3f} per token){start}."
    return perplexity_text(found.loss), told


def _of_loss(record: RunRecord) -> Headline:
    trained = f"after {record.steps} steps" if record.status == "finished" else f"({record.status})"
    if record.validation_loss is None:
        if record.train_loss is None:
            return "", f"The run is {record.status} and has no evaluation after training."
        return f"{record.train_loss:.3f}", f"mean training loss {trained}; nothing was evaluated after training."
    if record.recipe.get("kind") == "subject":
        return f"{record.validation_loss:.3f}", f"validation loss per picture {trained}."
    loss = f"loss {record.validation_loss:.3f} per token"
    return perplexity_text(record.validation_loss), f"perplexity on the validation data {trained} ({loss})."


def _of_what(found: EvaluationRecord) -> str:
    if found.scored is None or found.scored.is_counted:
        return f"of {found.total:,} {units_of([found.scored])} of {found.task} right"
    return f"of the credit of {found.total:,} {units_of([found.scored])} of {found.task}"


def _mean(found: Sequence[EvaluationRecord]) -> float:
    return fmean(one.accuracy for one in found)


def _percent(value: float) -> str:
    return f"{percent(value)}\N{NO-BREAK SPACE}%"
