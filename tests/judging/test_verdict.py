from dataclasses import replace

from moslora.judging.analysis import analyse
from moslora.judging.verdict import claim, of_finding
from tests.judging.simulated import drawn, judgement, study, written


def analysed(judgements, **told):
    return analyse(study(judgements, **told), draws=50)


def finding(**changes):
    (found,) = analysed(drawn(6, 20, gain=0.1, seed=1)).findings
    return replace(found, **changes)


def test_a_claim_needs_the_adjusted_p_value():
    shown = finding(mean=0.344, low=0.25, high=0.438, p_value=0.001, p_adjusted=0.002)
    assert claim(shown) == 1
    assert of_finding(shown) == "a is preferred to b by 34.4 points (25.0 to 43.8)"
    lost = finding(mean=0.1, low=0.01, high=0.19, p_value=0.03, p_adjusted=0.06)
    assert claim(lost) == 0
    assert of_finding(lost) == (
        "no difference between a and b is shown once all comparisons are allowed for (Holm p 0.06) (1.0 to 19.0 points)"
    )


def test_a_difference_the_other_way_names_the_other_method_first():
    shown = finding(mean=-0.2, low=-0.3, high=-0.1, p_value=0.001, p_adjusted=0.001)
    assert claim(shown) == -1
    assert of_finding(shown) == "b is preferred to a by 20.0 points (10.0 to 30.0)"


def test_no_difference_is_not_said_to_be_none():
    text = of_finding(finding(mean=0.066, low=-0.059, high=0.191, p_value=0.3, p_adjusted=0.3))
    assert text == "no difference between a and b is shown (-5.9 to 19.1 points)"


def test_the_whole_verdict_names_judges_pairs_subjects_and_questions():
    found = analysed(drawn(8, 24, gain=1.5, seed=2, subjects=("cat", "dog")))
    assert found.verdict.startswith(
        "Over 8 judges and 24 pairs of cat, dog: on prompt consistency, a is preferred to b"
    )
    assert "; cat, prompt consistency: a is preferred to b by" in found.verdict
    none = analysed(drawn(8, 24, gain=0, seed=3, subjects=("cat", "dog")))
    assert "on no single subject is a difference shown" in none.verdict


def test_missing_judgements_are_told_by_judges_who_stopped_and_who_never_came():
    found = analysed(written({"ann": "wtlw", "ben": "wt"}), judges_planned=3)
    assert "6 of 12 planned judgements are missing" in found.verdict


def test_judging_that_went_on_after_results_could_be_seen_is_told():
    assert "judging went on after it had been closed" in analysed(written({"ann": "w", "ben": "t"}), reopened=1).verdict
    assert "after it had been closed" not in analysed(written({"ann": "w", "ben": "t"})).verdict


def test_judges_who_fail_more_than_a_quarter_of_their_checks_are_named():
    real = written({"ann": "wtlw", "ben": "wttw"})
    checks = [
        judgement(judge, f"p{n}", "first" if judge == "ben" and n < 2 else "tie", check="same")
        for judge in ("ann", "ben")
        for n in range(4)
    ]
    assert "attention checks failed by ben (2 of 4)" in analysed(real + checks).verdict


def test_a_study_of_judges_who_did_not_look_says_so_first():
    real = written(dict.fromkeys(("ann", "ben", "cas", "dot", "eve", "fay", "gus"), "wtlw"))
    checks = [judgement(one, "p0", "first", check="same") for one in ("ann", "ben", "cas", "dot", "eve", "fay")]
    checks.append(judgement("gus", "p0", "tie", check="same"))
    verdict = analysed(real + checks).verdict
    assert verdict.startswith(
        "6 of 7 judges failed their attention checks, so these answers can say little. Over 7 judges"
    )
    assert "failed by ann (1 of 1), ben (1 of 1), cas (1 of 1), dot (1 of 1), eve (1 of 1) and 1 more" in verdict


def test_a_favoured_side_is_told():
    judgements = [
        judgement(judge, f"p{n}", "first" if (n + ord(judge)) % 2 else "second", left="ba"[(n + ord(judge)) % 2])
        for judge in "xyz"
        for n in range(20)
    ]
    text = analysed(judgements).verdict
    assert "the left side was favoured (p < 0.001), which hides differences" in text


def test_nothing_judged_says_nothing():
    record = study([], methods=("a", "b"), questions=("q",), judges=("ann",), pairs=4)
    assert analyse(record).verdict == "Nothing can be said: no pair of two methods has been judged."


def test_a_question_about_three_methods_is_named_once():
    judgements = [
        one
        for number, (first, second) in enumerate(("ab", "ac", "bc"))
        for one in drawn(4, 10, gain=0.2, seed=number, first=first, second=second, left=first)
    ]
    text = analysed(judgements, methods=("a", "b", "c")).verdict
    assert text.count("on prompt consistency") == 1
    assert all(f"between {first} and {second} is shown" in text for first, second in ("ab", "ac", "bc"))
