from making.settings_page import PAGE, page


def test_the_page_of_settings_is_current():
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again: python -m making.settings_page"
