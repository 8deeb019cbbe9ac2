"""How often the intervals of `moslora judge results` hold the truth, and how often it claims what is not there.

    python -m benchmarks.judging_simulation [--studies 1000]

Judges × pairs are answered from the latent model of `moslora judge plan`, whose shares of variance are settings here,
with a true difference and with none; also with judges who stop early, and with several seeds of each prompt that share
half of what pairs add. The same studies are given to two rivals that take every judgement as independent, the normal
interval and the binomial test, and to the sign test on units; these get 200 studies. Results: a table, and
benchmarks/results/judging_simulation.json. Takes about two minutes of one core.
"""

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import ndtr
from scipy.stats import binomtest

from moslora.estimation import LEVEL
from moslora.judging.analysis import score_estimate, sign_test
from moslora.judging.planning import Assumptions, answers, simulated
from moslora.judging.resampling import shares
from moslora.judging.scores import VALUES, Scores

OUTPUT = Path(__file__).parent / "results" / "judging_simulation.json"
JUDGES, PAIRS = (3, 5, 15, 30), (8, 32, 100)
GAINS = (0.0, 0.3)
WANTED, MOST_FALSE = (0.93, 0.97), 0.06
FEWER, DRAWS = 200, 400  # studies given to the rivals and to the bootstrap of shares, which take longer
VARIANCES = (
    Assumptions(of_pairs=0.3, of_judges=0.05),
    Assumptions(of_pairs=0.1, of_judges=0.1),
    Assumptions(of_pairs=0.4, of_judges=0.02, ties=0.3),
)


class Setting(NamedTuple):
    """A kind of study; `seeds` pairs share a prompt, and judge number n of J leaves out `gaps`·n/J of the pairs."""

    judges: int
    pairs: int
    gain: float
    assumed: Assumptions
    seeds: int = 1
    gaps: float = 0.0


def settings() -> Iterator[Setting]:
    for assumed in VARIANCES:
        for judges in JUDGES:
            for pairs in PAIRS:
                for gain in GAINS:
                    yield Setting(judges, pairs, gain, assumed)
    for gain in GAINS:
        for judges, pairs in ((5, 32), (15, 32), (15, 100)):
            yield Setting(judges, pairs, gain, VARIANCES[0], gaps=0.8)
            yield Setting(judges, pairs, gain, VARIANCES[0], seeds=4)


def studies(setting: Setting, count: int, *, seed: int) -> Iterator[Scores]:
    """Studies of a kind, as they are read from a file."""
    assumed = setting.assumed
    latent = simulated(setting.judges, setting.pairs, assumed, studies=count, seed=seed)
    if setting.seeds > 1:
        of_prompt = assumed.of_pairs / 2
        apart = Assumptions(of_pairs=of_prompt / (1 - of_prompt), of_judges=assumed.of_judges / (1 - of_prompt))
        latent = simulated(setting.judges, setting.pairs, apart, studies=count, seed=seed)
        own = np.random.default_rng([seed, 1]).standard_normal((count, 1, setting.pairs // setting.seeds))
        latent = (1 - of_prompt) ** 0.5 * latent + of_prompt**0.5 * np.repeat(own, setting.seeds, axis=2)
    values = answers(latent + assumed.shift(setting.gain), assumed)
    draw = np.random.default_rng([seed, 2])
    for one in values:
        for judge in range(setting.judges):
            stopped = round(setting.gaps * judge / setting.judges * setting.pairs)
            one[judge, draw.permutation(setting.pairs)[:stopped]] = np.nan
        yield scores(one, seeds=setting.seeds)


def scores(values: np.ndarray, *, seeds: int) -> Scores:
    judges, pairs = values.shape
    return Scores(
        question="question",
        first="a",
        second="b",
        judges=tuple(map(str, range(judges))),
        pairs=tuple(map(str, range(pairs))),
        subjects=(None,) * pairs,
        units=tuple((None, str(pair // seeds)) for pair in range(pairs)),
        values=values,
    )


def true_shares(setting: Setting) -> tuple[float, float, float]:
    """The shares of wins, ties and losses."""
    win = float(ndtr(setting.assumed.shift(setting.gain) - setting.assumed.threshold))
    return win, 1 - 2 * win + setting.gain, win - setting.gain


def described(setting: Setting) -> dict[str, Any]:
    assumed = setting.assumed
    return {
        "judges": setting.judges,
        "pairs": setting.pairs,
        "gain": setting.gain,
        "of_pairs": assumed.of_pairs,
        "of_judges": assumed.of_judges,
        "ties": assumed.ties,
        "seeds_of_a_prompt": setting.seeds,
    }


def of_setting(setting: Setting, *, count: int, seed: int) -> dict[str, Any]:
    """Coverage and claims of one kind of study."""
    held, claimed, half, naive_held, naive_claimed, sign = [], [], [], [], [], []
    truth = true_shares(setting)
    held_shares = []
    for number, study in enumerate(studies(setting, count, seed=seed)):
        found = score_estimate(study)
        held.append(found.low <= setting.gain <= found.high)
        claimed.append(found.p_value < LEVEL)
        half.append((found.high - found.low) / 2)
        if number >= FEWER:
            continue
        told = shares(study.counts(), draws=DRAWS, seed=number)
        held_shares.append([one.low <= true <= one.high for one, true in zip(told, truth, strict=True)])
        given = study.values[~np.isnan(study.values)]
        reach = 1.96 * given.std(ddof=1) / len(given) ** 0.5
        naive_held.append(abs(given.mean() - setting.gain) <= reach)
        wins, losses = int((given > 0).sum()), int((given < 0).sum())
        naive_claimed.append(wins + losses > 0 and binomtest(wins, wins + losses).pvalue < LEVEL)
        sign.append(sign_test(study)[2] < LEVEL)
    return described(setting) | {
        "share_missing": float(np.isnan(study.values).mean()),
        "coverage": float(np.mean(held)),
        "claims": float(np.mean(claimed)),
        "median_half_width": float(np.median(half)),
        "coverage_of_shares": dict(zip(("win", "tie", "loss"), np.mean(held_shares, axis=0).tolist(), strict=True)),
        "coverage_if_judgements_were_independent": float(np.mean(naive_held)),
        "claims_if_judgements_were_independent": float(np.mean(naive_claimed)),
        "claims_of_the_sign_test": float(np.mean(sign)),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The extremes, and the kinds of study outside what is wanted."""
    coverage = [row["coverage"] for row in rows]
    null = [row for row in rows if not row["gain"]]
    false = [row["claims"] for row in null]

    def ends(name: str) -> list[float]:
        return [min(row[name] for row in null), max(row[name] for row in null)]

    low, high = WANTED
    outside = [
        row for row in rows if not low <= row["coverage"] <= high or (not row["gain"] and row["claims"] > MOST_FALSE)
    ]
    named = (
        "judges",
        "pairs",
        "gain",
        "of_pairs",
        "of_judges",
        "seeds_of_a_prompt",
        "share_missing",
        "coverage",
        "claims",
    )
    return {
        "coverage": [min(coverage), float(np.mean(coverage)), max(coverage)],
        "false_claims": [min(false), float(np.mean(false)), max(false)],
        "coverage_of_shares": [
            min(min(row["coverage_of_shares"].values()) for row in rows),
            float(np.mean([[*row["coverage_of_shares"].values()] for row in rows])),
        ],
        "false_claims_if_judgements_were_independent": ends("claims_if_judgements_were_independent"),
        "false_claims_of_the_sign_test": ends("claims_of_the_sign_test"),  # which is for the judges there are
        "wanted": {"coverage": WANTED, "false_claims_at_most": MOST_FALSE},
        "outside": [{name: row[name] for name in named} for row in outside],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--studies", type=int, default=1000)
    count = parser.parse_args().studies
    rows = [of_setting(setting, count=count, seed=number) for number, setting in enumerate(settings())]
    result = {"date": datetime.now(UTC).date().isoformat(), "studies": count, "fewer": FEWER, "level": LEVEL}
    result |= {"answers": [*VALUES], "summary": summary(rows), "rows": rows}
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    shown = Table("judges × pairs", "true gain", "variances", "coverage", "claims", "± points", "independent: claims")
    for row in rows:
        kind = f"pairs {row['of_pairs']:g}, judges {row['of_judges']:g}"
        kind += f", {row['seeds_of_a_prompt']} seeds" if row["seeds_of_a_prompt"] > 1 else ""
        kind += f", {row['share_missing']:.0%} missing" if row["share_missing"] else ""
        numbers = [
            row["coverage"],
            row["claims"],
            row["median_half_width"],
            row["claims_if_judgements_were_independent"],
        ]
        shown.add_row(
            f"{row['judges']} × {row['pairs']}", f"{row['gain']:.0%}", kind, *(f"{100 * n:.1f}" for n in numbers)
        )
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
