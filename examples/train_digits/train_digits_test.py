#!/usr/bin/env python3
"""Any number of ranks must reach the single process's result: same loss curve, same accuracy."""
import json
import pathlib
import subprocess
import sys

# Relative. Gradients are summed in double precision, in another order for another number of ranks;
# some thousand steps let the last bits grow.
TOLERANCE = 1e-6
ACCURACY_MIN = 0.95


def curve(sumac, program, ranks):
    run = subprocess.run([sumac, "run", "-n", str(ranks), "--no-tag-output", "--timeout", "120", "--",
                          program, "--json"], capture_output=True, text=True, timeout=150)
    assert run.returncode == 0, f"{ranks} ranks: exit code {run.returncode}\n{run.stderr}"
    return json.loads(run.stdout)


def main():
    sumac, program = sys.argv[1:]
    if not (pathlib.Path(program).parent / "../share/sumac/digits.csv").exists():
        print("skipped: no digits.csv; scripts/setup fetches it")
        return 77
    alone = curve(sumac, program, 1)
    print(f"1 rank: accuracy {alone[-1]['test_accuracy']:.4f}")
    assert alone[-1]["test_accuracy"] >= ACCURACY_MIN, alone[-1]
    assert alone[-1]["loss"] < alone[0]["loss"] / 5, "it did not learn"
    for ranks in (3, 4):
        together = curve(sumac, program, ranks)
        assert len(together) == len(alone)
        worst = max(abs(a["loss"] - b["loss"]) / a["loss"] for a, b in zip(alone, together))
        print(f"{ranks} ranks: loss differs by at most {worst:.1e} of it")
        assert worst < TOLERANCE, worst
        assert abs(together[-1]["test_accuracy"] - alone[-1]["test_accuracy"]) < 0.01
    return 0


if __name__ == "__main__":
    sys.exit(main())
