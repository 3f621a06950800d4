"""Make a table to learn from out of a job trace: one row for each job, only what was known when it was submitted.

usage: prepare.py JOBS_CSV

JOBS_CSV has the columns of NREL's Eagle sample (job_id, user, partition, qos, wallclock_req, nodes_req,
processors_req, gpus_req, mem_req, submit_time, end_time, run_time, …), plain or gzipped. Writes features.csv. Rows
without a submission, end, request or run time above 0 are left out and counted. Only Python is needed.
"""

import bisect
import csv
import gzip
import json
import math
import sys
from collections import defaultdict
from datetime import datetime, timezone

GZIP = b"\x1f\x8b"
FEATURES = ["log_requested", "nodes", "processors", "gpus", "memory", "partition", "qos", "hour", "weekday"]
FEATURES += ["class_jobs", "user_jobs", "last_of_class", "last_two_of_user", "median_of_user", "running_of_user"]
COLUMNS = ["job", "submitted", "ended", "requested_s", "actual_s", "anchor_s", *FEATURES]


def jobs(path):
    with open(path, "rb") as head:
        zipped = head.read(2) == GZIP
    with (gzip.open if zipped else open)(path, "rt", newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


def seconds(text):
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def read(row):
    """The job as numbers, or None where something that is needed is missing."""
    try:
        job = {
            "job": row["job_id"],
            "user": row["user"],
            "submitted": seconds(row["submit_time"]),
            "ended": seconds(row["end_time"]),
            "requested": float(row["wallclock_req"]),
            "actual": float(row["run_time"]),
            "nodes": int(row["nodes_req"]),
            "processors": int(row["processors_req"]),
            "gpus": int(row["gpus_req"] or 0),
            "memory": float(row["mem_req"] or 0),
            "partition": row["partition"],
            "qos": row["qos"],
        }
    except ValueError:
        return None
    return job if job["requested"] > 0 and job["actual"] > 0 else None


class History:
    """What had ended when a job was submitted: run times in the order in which jobs ended."""

    def __init__(self):
        self.ended, self.times = [], []

    def add(self, ended, actual):
        self.ended.append(ended)
        self.times.append(actual)

    def before(self, moment):
        return self.times[: bisect.bisect_left(self.ended, moment)]


def median(values):
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def features(job, of_user, of_class, running):
    """The row of one job; history is told relative to the anchor, as logarithms of ratios."""
    requested = job["requested"]
    anchor = of_class[-1] if of_class else sum(of_user[-2:]) / len(of_user[-2:]) if of_user else requested
    moment = datetime.fromtimestamp(job["submitted"], tz=timezone.utc)

    def relative(value):
        return math.log(value / anchor)

    return {
        "job": job["job"],
        "submitted": job["submitted"],
        "ended": job["ended"],
        "requested_s": requested,
        "actual_s": job["actual"],
        "anchor_s": min(anchor, requested),
        "log_requested": relative(requested),
        "nodes": job["nodes"],
        "processors": job["processors"],
        "gpus": job["gpus"],
        "memory": job["memory"],
        "partition": job["partition"],
        "qos": job["qos"],
        "hour": moment.hour,
        "weekday": moment.weekday(),
        "class_jobs": min(len(of_class), 20),
        "user_jobs": min(len(of_user), 20),
        "last_of_class": relative(of_class[-1]) if of_class else "",
        "last_two_of_user": relative(sum(of_user[-2:]) / len(of_user[-2:])) if of_user else "",
        "median_of_user": relative(median(of_user[-10:])) if of_user else "",
        "running_of_user": running,
    }


def table(found):
    """The rows in order of submission."""
    users, classes, ended = defaultdict(History), defaultdict(History), defaultdict(list)
    for job in sorted(found, key=lambda job: job["ended"]):
        users[job["user"]].add(job["ended"], job["actual"])
        classes[kind(job)].add(job["ended"], job["actual"])
        ended[job["user"]].append(job["ended"])
    submitted = defaultdict(int)
    for job in sorted(found, key=lambda job: (job["submitted"], job["job"])):
        moment, user = job["submitted"], job["user"]
        running = submitted[user] - bisect.bisect_left(ended[user], moment)
        submitted[user] += 1
        yield features(job, users[user].before(moment), classes[kind(job)].before(moment), running)


def kind(job):
    """Jobs of one class: same user, same size, same request."""
    return job["user"], job["nodes"], job["processors"], job["requested"]


def codes(rows, column):
    """Names become numbers, so that the table holds nothing else."""
    known = {name: number for number, name in enumerate(sorted({row[column] for row in rows}))}
    for row in rows:
        row[column] = known[row[column]]


def main():
    read_jobs = [read(row) for row in jobs(sys.argv[1])]
    rows = list(table([job for job in read_jobs if job]))
    for column in ("partition", "qos"):
        codes(rows, column)
    with open("features.csv", "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(json.dumps({"jobs": len(rows), "left_out": len(read_jobs) - len(rows)}))


if __name__ == "__main__":
    main()
