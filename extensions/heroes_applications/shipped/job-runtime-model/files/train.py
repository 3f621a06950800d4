"""Learn from a trace how long jobs run; say how good that is on jobs that were not learned from, and draw it.

usage: train.py FEATURES_CSV SPLIT TREES LEAVES LEARNING_RATE TEST_SHARE SEED THREADS

SPLIT "time": the last TEST_SHARE of the submissions is scored, and only jobs that had ended before the first of them are
learned from, as in practice. SPLIT "random": any TEST_SHARE of the jobs is scored, the others are learned from; this
tells how well the model describes the trace and flatters it as a forecast. The model corrects an anchor (the last run of
the same user, size and request) on a logarithmic scale. Writes metrics.json, predictions.csv, model.txt and
predicted-against-actual.png.
"""

import csv
import json
import sys
from pathlib import Path

import lightgbm
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

FEATURES = ["log_requested", "nodes", "processors", "gpus", "memory", "partition", "qos", "hour", "weekday"]
FEATURES += ["class_jobs", "user_jobs", "last_of_class", "last_two_of_user", "median_of_user", "running_of_user"]


def read(path):
    with open(path, newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    names = ["submitted", "ended", "requested_s", "actual_s", "anchor_s"]
    columns = {name: np.array([float(row[name]) for row in rows]) for name in names}
    matrix = np.array([[float(row[name] or "nan") for name in FEATURES] for row in rows])
    return [row["job"] for row in rows], columns, matrix


def divide(columns, split, share, seed):
    """Which jobs are learned from, and which are scored."""
    count = len(columns["submitted"])
    if split == "random":
        scored = np.zeros(count, dtype=bool)
        scored[np.random.default_rng(seed).permutation(count)[: int(count * share)]] = True
        return ~scored, scored
    first = int(count * (1 - share))
    scored = np.arange(count) >= first
    return ~scored & (columns["ended"] < columns["submitted"][first]), scored


def train(matrix, anchor, actual, trees, leaves, rate, seed, threads):
    data = lightgbm.Dataset(matrix, np.log(actual), init_score=np.log(anchor), feature_name=FEATURES)
    settings = {
        "objective": "regression_l1", "num_leaves": leaves, "learning_rate": rate, "min_data_in_leaf": 10,
        "feature_fraction": 0.5, "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 5, "verbosity": -1,
        "seed": seed, "num_threads": threads, "deterministic": True, "force_row_wise": True,
    }
    return lightgbm.train(settings, data, num_boost_round=trees)


def score(predicted, actual):
    """Accuracy is the mean of min(p, a) / max(p, a) (Tsafrir, Etsion, Feitelson, TPDS 2007)."""
    ratio = np.minimum(predicted, actual) / np.maximum(predicted, actual)
    return {
        "accuracy": float(ratio.mean()),
        "mean_absolute_error_s": float(abs(predicted - actual).mean()),
        "median_absolute_error_s": float(np.median(abs(predicted - actual))),
        "within_a_factor_of_2": float((ratio >= 0.5).mean()),
        "under_estimated": float((predicted < actual).mean()),
    }


def draw(predicted, requested, actual, metrics):
    figure, axes = plt.subplots(figsize=(6, 5.6), layout="constrained")
    low, high = min(predicted.min(), actual.min()), max(requested.max(), actual.max())
    axes.plot([low, high], [low, high], color="black", linewidth=0.8, label="exact")
    axes.scatter(actual, requested, s=10, alpha=0.35, label=f"as requested ({metrics['requested']['accuracy']:.0%})")
    axes.scatter(actual, predicted, s=10, alpha=0.6, label=f"predicted ({metrics['model']['accuracy']:.0%})")
    axes.set(xscale="log", yscale="log", xlabel="actual run time (s)", ylabel="predicted run time (s)")
    axes.set_title(f"{len(actual)} jobs not learned from (accuracy in brackets)")
    axes.grid(alpha=0.3, which="major")
    axes.legend()
    figure.savefig("predicted-against-actual.png", dpi=110)


def save(jobs, predicted, requested, actual):
    with open("predictions.csv", "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["job", "predicted_s", "requested_s", "actual_s"])
        writer.writerows(zip(jobs, predicted.round(1), requested, actual))


def main():
    path, split, trees, leaves, rate, share, seed, threads = sys.argv[1:]
    jobs, columns, matrix = read(path)
    known, scored = divide(columns, split, float(share), int(seed))
    if known.sum() < 20 or not scored.any():
        sys.exit(f"{known.sum()} jobs to learn from, {scored.sum()} to score: change test_share, or give more jobs")
    anchor, actual, requested = columns["anchor_s"], columns["actual_s"], columns["requested_s"]
    model = train(
        matrix[known], anchor[known], actual[known], int(trees), int(leaves), float(rate), int(seed), int(threads)
    )
    corrected = np.exp(np.log(anchor[scored]) + model.predict(matrix[scored]))
    predicted = np.clip(corrected, 1, requested[scored])
    metrics = {
        "split": split,
        "trained_on": int(known.sum()),
        "scored": int(scored.sum()),
        "model": score(predicted, actual[scored]),
        "anchor": score(anchor[scored], actual[scored]),
        "requested": score(requested[scored], actual[scored]),
    }
    model.save_model("model.txt")
    save([job for job, is_scored in zip(jobs, scored) if is_scored], predicted, requested[scored], actual[scored])
    draw(predicted, requested[scored], actual[scored], metrics)
    Path("metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    print(json.dumps(metrics))


main()
