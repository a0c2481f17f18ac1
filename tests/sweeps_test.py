# SPDX-License-Identifier: Apache-2.0
"""Every sweep loads, states its claim, and compares what it says that it compares."""

import collections
import csv
import json
import re
import statistics

import jax
import pytest

from data_pipeline import tasks
from tests.helpers.runs import ROOT
from trm_jax.beside import get_config
from trm_jax.commands.sweep_runs import load, runs_of
from trm_jax.settings import flatten
from trm_jax.training.build import build

NAMES = sorted(path.stem for path in (ROOT / "configs" / "sweeps").glob("[!_]*.py"))
FIVE = {"rows": 5, "cols": 5}


def first_runs(name):
    """The runs of the first seed, by arm."""
    sweep = load(ROOT / "configs" / "sweeps" / f"{name}.py")
    return {run.arm.name: run for run in runs_of(name, sweep) if run.seed == 0}


def parted(arm):
    """The network and the lever of an arm NETWORK.LEVER, or of LEVER."""
    network, _, lever = (arm if "." in arm else f".{arm}").partition(".")
    return network, lever


def training_flops(run):
    return run.step_flops() * run.read_config()["train"]["steps"]


def parameters(run):
    config = run.read_config()
    like = build(config, tasks.spec_of(config["data"]).sizes).state_like
    return sum(leaf.size for leaf in jax.tree.leaves(like.params))


def differences(one, other):
    one, other = flatten(one), flatten(other)
    return {key for key in one.keys() | other.keys() if one[key] != other[key]}


@pytest.mark.parametrize("name", NAMES)
def test_every_sweep_reads_and_states_its_claim(name):
    text = (ROOT / "configs" / "sweeps" / f"{name}.py").read_text()
    for word in ("Command:", "Hardware:", "Result:", "Claim:"):
        assert word in text
    assert f"configs/sweeps/{name}.py --out=docs/sweeps/{name}" in text
    sweep = load(ROOT / "configs" / "sweeps" / f"{name}.py")
    assert sweep.seeds == ((0,) if name.startswith("levers_9x9") else (0, 1, 2))
    for run in first_runs(name).values():
        config = run.read_config()
        if name == "nonogram":
            assert config["data"]["nonogram"] == {**config["data"]["nonogram"], **FIVE}
        elif name == "levers_maze":
            assert config["data"]["maze"]["side"] == 7
        else:
            four = "4x4" in name or run.arm.config.startswith("sudoku_4x4")
            assert config["data"]["sudoku"]["box_cols"] == (2 if four else 3)
        assert config["train"]["eval_every"] == -(-config["train"]["steps"] // 4)


@pytest.mark.parametrize(
    ("name", "arms"),
    [
        ("cycles", 3),
        pytest.param("levers_9x9", 8, marks=pytest.mark.slow),
        pytest.param("levers_6x6", 20, marks=pytest.mark.slow),
        pytest.param("levers_4x4", 20, marks=pytest.mark.slow),
        pytest.param("levers_9x9_hard", 4, marks=pytest.mark.slow),
        pytest.param("levers_maze", 12, marks=pytest.mark.slow),
        pytest.param("levers_muon", 5, marks=pytest.mark.slow),
        pytest.param("levers_decay", 7, marks=pytest.mark.slow),
        pytest.param("levers_networks", 16, marks=pytest.mark.slow),
        pytest.param("levers_together", 6, marks=pytest.mark.slow),
        pytest.param("levers_more", 6, marks=pytest.mark.slow),
        pytest.param("levers_grid", 6, marks=pytest.mark.slow),
    ],
)
def test_arms_have_equal_flops(name, arms):
    flops = {arm: training_flops(run) for arm, run in first_runs(name).items()}
    assert len(flops) == arms
    # These have fewer and more updates, or chains that cost extra.
    apart = ("_thirds", "_extra")
    of_networks = collections.defaultdict(list)
    for arm, count in flops.items():
        if not arm.endswith(apart):
            of_networks[parted(arm)[0]].append(count)
    for network, counts in of_networks.items():
        assert max(counts) < 1.02 * min(counts), (network, flops)


def test_the_arms_of_networks_have_one_head_or_one_network_more():
    runs = first_runs("networks")
    settings = {arm: run.read_config()["rule"]["hrm"] for arm, run in runs.items()}
    changed = {arm: differences(settings["shared"], settings[arm]) for arm in settings}
    expected = {"shared": set(), "act": {"continue_head"}, "two": {"share_network"}}
    assert changed == expected
    costs = {arm: run.step_flops() for arm, run in runs.items()}
    assert costs["shared"] == costs["two"]
    # In calls of the network: 6, twice 3 for the gradients, and 6 in the second pass.
    assert costs["act"] == pytest.approx(1.5 * costs["shared"], rel=0.02)


def test_the_papers_table_at_small_size_has_the_numbers_of_the_sweeps():
    text = (ROOT / "docs" / "ablations.md").read_text()
    row = re.compile(r"\| (.*) \| (.*) \| \[(\w+)\]\(sweeps/\3/table.md\) `(\w+)` \|")
    rows = row.findall(text)
    assert len(rows) == 10
    for change, here, sweep, arm in rows:
        paper = change.rpartition(" | ")[2]
        with (ROOT / "docs" / "sweeps" / sweep / "table.csv").open() as file:
            (found,) = [line for line in csv.DictReader(file) if line["arm"] == arm]
        assert found["paper"] == f"{paper} (Sudoku-Extreme)", arm
        exact = found["exact"]
        assert here == (f"{float(exact):.2f}" if exact else "not run"), arm


def test_the_tables_of_levers_have_the_numbers_of_the_sweeps():
    """A cell holds mean and deviation, and the number of seeds unless all ran."""
    text = (ROOT / "docs" / "levers.md").read_text()
    tables = re.findall(r"(\| [^|]* \| arm \|.*\n)\|[-|]*\n((?:\|.*\n)+)", text)
    assert tables
    for head, body in tables:
        rows = re.findall(r"\| [^|]* \| `([\w.]+)` \|(.*) \|\n", body)
        assert len(rows) == body.count("\n")
        columns = re.findall(r"\[([^]]*)\]\(sweeps/(\w+)/table.md\)", head)
        for place, (title, sweep) in enumerate(columns):
            arms = levers_in(sweep, title)
            for arm, cells in rows:
                found = cells.split(" | ")[place].strip()
                assert found == arms.pop(arm, ""), (title, sweep, arm)
            assert not arms, (title, sweep)


SYSTEMS = {"EqR": "eqr", "URM": "urm", "winner takes all": "wta"}
SYSTEMS |= {"Looped Flows": "flow", "TRM": "plain"}
ROW = r"\| ([^|\n]*) \|.*\| (?:with [^|]* MLP-t )?([^|]*) %, from 1,000 puzzles \|"


def test_the_readme_has_the_numbers_of_the_levers():
    text = (ROOT / "README.md").read_text()
    found = dict(re.findall(ROW, text))
    (found["TRM"],) = re.findall(r"where TRM with MLP-t\nsolves (.*) % for", text)
    (earlier,) = re.findall(r"after (.*) % at three quarters of them", text)
    assert after_three_quarters("levers_6x6")["plain"].startswith(f"{earlier} ± ")
    (constant,) = re.findall(r", and (.*) % at a\nconstant learning rate", text)
    assert levers_in("levers_decay", "MLP-t")["plain"] == constant
    (four,) = re.findall(r"Mamba-2 in four .* \| (.*) % \(3 seeds\) \|", text)
    assert levers_in("levers_maze", "exact")["mamba2_four"] == four
    arms = levers_in("levers_6x6", "MLP-t")
    assert found == {system: arms[arm] for system, arm in SYSTEMS.items()}


def levers_in(sweep, title):
    """What the table says of each arm that was run; a title may name a network."""
    if "3/4" in title:
        return after_three_quarters(sweep)
    network, is_valid = re.search(r"`(\w+)`", title), title.startswith("valid")
    with (ROOT / "docs" / "sweeps" / sweep / "table.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["exact"]]
    return {
        parted(line["arm"])[1]: of_seeds(line, "valid" if is_valid else "exact")
        for line in lines
        if not network or parted(line["arm"])[0] == network[1]
    }


def after_three_quarters(sweep):
    """Mean and deviation of the last but one of four evaluations during training."""
    found = {}
    for path in sorted((ROOT / "docs" / "sweeps" / sweep).glob("*.json")):
        result = json.loads(path.read_text())
        (step, value), (last, _) = result["curve"][-2:]
        assert step == pytest.approx(0.75 * last, rel=0.01)
        found.setdefault(parted(result["arm"])[1], []).append(100 * value)
    return {
        arm: f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
        for arm, values in found.items()
    }


def of_seeds(line, column):
    count = len(line["by_seed"].split(", "))
    sd = line["exact_sd"] if column == "exact" else ""
    spread = f" ± {float(sd):.1f}" if sd else ""
    seeds = "" if count == int(line["planned"]) else f" ({count})"
    return f"{float(line[column]):.1f}{spread}{seeds}"


def test_one_latent_costs_as_much_as_two():
    one, two = first_runs("latents").values()
    assert one.step_flops() == two.step_flops()


@pytest.mark.slow
def test_operators_have_equal_parameters_and_flops():
    runs = first_runs("operators")
    assert len(runs) == 7
    sizes = {arm: parameters(run) for arm, run in runs.items()}
    assert max(sizes.values()) < 1.05 * min(sizes.values()), sizes
    flops = {arm: training_flops(run) for arm, run in runs.items()}
    others = {arm: flop for arm, flop in flops.items() if "mamba2" not in arm}
    assert max(others.values()) < 1.02 * min(others.values()), flops
    # The more exact sums of Mamba-2's scan came after these runs.
    assert max(flops.values()) < 1.07 * min(flops.values()), flops


@pytest.mark.parametrize(
    ("name", "arm", "calls"), [("gradient", "last_cycle", 3), ("networks", "shared", 3)]
)
def test_the_arm_that_is_trm_is_the_demo(name, arm, calls):
    config, demo = first_runs(name)[arm].read_config(), get_config("demo").to_dict()
    rule = config["rule"]["hrm"]
    assert rule["share_network"]
    assert not rule["continue_head"]
    trm = demo["rule"]["trm"]
    for key in ("h_cycles", "l_cycles"):
        assert rule[key] == trm[key]
    assert rule["grad_calls"] == trm["l_cycles"] + 1 == calls
    changed = differences(config, demo)
    others = {key for key in changed if not key.startswith("rule.")}
    assert others == {"train.eval_every"}


def test_arms_of_a_sweep_differ_only_in_what_it_compares():
    compared = {
        "gradient": {"rule.hrm.grad_calls"},
        "networks": {"rule.hrm.share_network", "rule.hrm.continue_head"},
        "l_cycles": {"rule.trm.l_cycles"},
        "layers": {"model.layers", "rule.trm.l_cycles"},
        "latents": {"rule.name"}
        | {f"rule.trm.{key}" for key in ("h_cycles", "l_cycles")}
        | {f"rule.one_latent.{key}" for key in ("h_cycles", "l_cycles")},
        "ema": {"optim.ema_decay", "optim.ema_ramp"},
        "cycles": {"rule.trm.h_cycles", "rule.trm.l_cycles", "train.steps"}
        | {"train.eval_every"},
        "levers_muon": {"model.swiglu.inner_norm", "optim.muon.lr"},
        "levers_9x9": {"data.train", "model.d_model", "model.swiglu.width"}
        | {"rule.trm.h_cycles", "rule.trm.l_cycles", "rule.trm.label_smoothing"}
        | {"optim.decay_start", "optim.min_ratio"}
        | {"train.batch_size", "train.steps", "train.eval_every"},
    }
    others = {"operators", "nonogram", "loops_4x4", "loops_6x6"}
    others |= {"levers_4x4", "levers_6x6", "levers_maze", "levers_decay"}
    others |= {"levers_networks", "levers_together", "levers_9x9_hard", "levers_more"}
    others |= {"levers_grid"}
    assert compared.keys() | others == set(NAMES)
    for name, keys in compared.items():
        first, *others = (run.read_config() for run in first_runs(name).values())
        changed = set().union(*(differences(first, other) for other in others))
        assert changed == keys, name
