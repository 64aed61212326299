"""Run a study: ``python run.py STUDY.toml DATA RUNS [--seeds 0,1,2] [--only NAME,...] [--jobs 2]``.

A study is a file of TOML. Each of its ``[trainings]`` is what ``daukit train`` is told beside what is ``common`` and,
for new networks, ``network``; it is run with every seed on the images of ``DATA`` and gives
``RUNS/NAME/SEED.safetensors`` and its log. A training of the same name in ``[starts]`` begins with the file that is
named there, or that the command there writes. Then come the commands of ``[[after]]``, each of which prints a JSON
object, that becomes ``RUNS/NAME/SEED.KIND.json``; one that has ``first`` is of the file which that command writes. What
is there already is left alone, and trainings that were stopped go on, so a study may be stopped and started at will. A
training whose log and JSON objects are all there is not repeated for its file, so that ``RUNS`` may also be the kept
``logs`` of a study, for trainings that start with no other's file.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from daukit.training.toml import parse_toml


def main() -> None:
    """Run what is missing, one seed after another, so that a study that is stopped has few seeds of all trainings."""
    parser = argparse.ArgumentParser(description="Run the trainings of a study that are missing.")
    parser.add_argument("study", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", help="names of trainings, with commas between")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, of one thread each")
    arguments = parser.parse_args()
    study = parse_toml(arguments.study.read_text())
    names = arguments.only.split(",") if arguments.only else list(study["trainings"])
    unknown = [name for name in names if name not in study["trainings"]]
    if unknown:
        parser.error(f"--only: there is no training {unknown[0]!r} (trainings: {', '.join(study['trainings'])})")
    done: list[Future[None]] = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for seed in arguments.seeds.split(","):
            for name in names:
                # One that begins with what others leave waits for those before it, which the pool has begun already.
                before = list(done) if name in study.get("starts", {}) else []
                done.append(pool.submit(run, study, name, seed, arguments.data, arguments.runs, before))
    for each in done:
        each.result()


def run(
    study: dict[str, Any], name: str, seed: str, data: Path, runs: Path, before: Sequence[Future[None]] = ()
) -> None:
    """Do a training with a seed and what comes after it, unless that is done; first wait for those ``before``."""
    wait(before)
    output = runs / name / f"{seed}.safetensors"
    after = {output.with_suffix(f".{one['kind']}.json"): one for one in afterwards(study, name)}
    if after and all(path.exists() for path in (output.with_suffix(".jsonl"), *after)):
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    if not output.exists():
        resume = ["--resume"] if output.with_suffix(".resume.safetensors").exists() else []
        words = shlex.split(f"{study.get('common', '')} {study['trainings'][name]}")
        if name in study.get("starts", {}):
            start = output.with_suffix(".start.safetensors")
            begin = [word.format(runs=runs, seed=seed, data=data) for word in shlex.split(study["starts"][name])]
            if len(begin) == 1:
                start = Path(*begin)
            elif not start.exists():
                daukit([*begin, "-o", str(start), "--quiet"])
            words += ["--initial-checkpoint", str(start)]
        else:
            words = [*shlex.split(study.get("network", "")), *words]
        daukit(["train", "--data", str(data), "--seed", seed, *words, "-o", str(output), "--quiet", *resume])
    for result, one in after.items():
        if not result.exists():
            of = output
            if "first" in one:
                of = result.with_suffix(".safetensors")
                begin = [word.format(file=output, data=data) for word in shlex.split(one["first"])]
                daukit([*begin, "-o", str(of), "--overwrite", "--quiet"])
            words = [word.format(file=of, data=data) for word in shlex.split(one["command"])]
            result.write_text(without_folders(daukit([*words, "--json"]), runs))


def without_folders(printed: str, runs: Path) -> str:
    """What a command printed, on a line, its paths less the folders that are of this machine."""
    told = json.loads(printed)
    for key in {"file", "data"} & set(told):
        path = Path(told[key])
        told[key] = path.relative_to(runs).as_posix() if path.is_relative_to(runs) else path.name
    return json.dumps(told) + "\n"


def afterwards(study: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """What is measured of a training."""
    return [after for after in study.get("after", ()) if name in after.get("of", [name])]


def daukit(arguments: list[str]) -> str:
    """Run a command on one thread, and return what it prints."""
    print("daukit", shlex.join(arguments), flush=True)
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "daukit", *arguments]
    return subprocess.run(command, env=alone, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    main()
