"""What is counted in compiled programs: on one whose counts are known, then the benchmarks that count, at toy size."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not part of the package

from benchmarks import hlo, profile_step, scaling


def test_bytes_of_shapes():
    sizes = {"f32[2,3]{1,0}": 24, "pred[]": 1, "(bf16[4]{0}, /*index=5*/u8[2,2], s32[])": 16, "token[]": 0}
    assert {shape: hlo.size_of(shape) for shape in sizes} == sizes


def test_what_devices_send_inside_and_outside_of_loops():
    """A vector of 16 is summed over 8 devices in every pass of a loop, 32 rows of it are gathered once."""

    def share(x, passes):
        def body(_, total):
            return total + jax.lax.psum(x.sum(0) * total, "devices")

        total = jax.lax.fori_loop(0, passes, body, jnp.ones(16))
        return jax.lax.all_gather(x, "devices", tiled=True) + total

    mesh, rows = Mesh(np.asarray(jax.devices()), ("devices",)), PartitionSpec("devices")
    specs = {"in_specs": (rows, PartitionSpec()), "out_specs": PartitionSpec()}
    program = jax.jit(jax.shard_map(share, mesh=mesh, check_vma=False, **specs))
    compiled = program.lower(jnp.ones((32, 16)), jnp.int32(3)).compile()
    once, each = 32 * 16 * 4 * 7 // 8, 2 * 16 * 4 * 7 // 8
    assert dict(hlo.sent(compiled.as_text(), 8)) == {(0, "all-gather"): once, (1, "all-reduce"): each}
    everywhere, inside = hlo.kernels(compiled.as_text()), hlo.kernels(compiled.as_text(), depth=1)
    assert 0 < len(inside) < len(everywhere)
    sizes = [size for _, size in everywhere]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] >= 32 * 16 * 4
    assert hlo.counted(compiled)["held"] >= 32 * 16 * 4


def test_scoring_and_selection_are_divided():
    toy = ["--devices=1,2", "--pool=64", "--labels=8", "--k=4", "--strategies=margin", "--modes=strong"]
    (rows,) = scaling.main(toy).tables.values()
    assert [row["devices"] for row in rows] == [1, 2] * 3
    _, joined, scored_once, scored, selected_once, selected = rows
    assert (joined["what"], scored["what"]) == ("joining signals, margin", "scoring, lenet")
    assert selected["what"] == "select, margin"
    assert scored["MFLOP"] == pytest.approx(scored_once["MFLOP"] / 2, rel=0.01)
    assert scored_once["kB sent once"] == scored["kB sent once"] == selected_once["kB sent once"] == 0
    assert selected["kB sent once"] == pytest.approx(64 * 4 / 2 / 1e3), "the scores, and no probabilities"


def test_profile_of_a_step():
    report = profile_step.main(["--batch=4", "--steps=2", "--repeats=1", "--pool=32", "--labels=16"])
    (whole,), kinds, largest, longest, before = report.tables.values()
    assert whole["kernels"] == sum(row["kernels"] for row in kinds) > 10
    assert whole["MB between kernels"] == pytest.approx(sum(row["MB"] for row in kinds), rel=1e-3)
    assert largest[0]["MB"] == max(row["MB"] for row in largest)
    assert longest[0]["us"] == max(row["us"] for row in longest) > 0
    assert "dot_general" in {row["operation"] for row in before}


def test_what_runs_beside_the_rest_is_one_kernel():
    """Two instructions, as accelerators have it: its start is a tuple of both sides, which would count both twice."""
    text = """HloModule beside
ENTRY %main (x: f32[10]) -> f32[10] {
  %x = f32[10]{0} parameter(0)
  %copy-start = (f32[10]{0:S(1)}, f32[10]{0}, u32[]{:S(2)}) copy-start(%x)
  %copy-done = f32[10]{0:S(1)} copy-done(%copy-start)
  ROOT %add = f32[10]{0} add(%copy-done, %x)
}
"""
    assert [(one.kind, size) for one, size in hlo.kernels(text)] == [("add", 120), ("copy-done", 80)]


def test_both_ways_that_a_program_may_go_are_counted():
    """The way of GPUs to name them, for a choice by truth."""
    text = """HloModule either
%yes (a: f32[10]) -> f32[10] {
  %a = f32[10]{0} parameter(0)
  ROOT %twice = f32[10]{0} add(%a, %a)
}

%no (b: f32[10]) -> f32[10] {
  %b = f32[10]{0} parameter(0)
  ROOT %less = f32[10]{0} negate(%b)
}

ENTRY %main (p: pred[], x: f32[10]) -> f32[10] {
  %p = pred[] parameter(0)
  %x = f32[10]{0} parameter(1)
  ROOT %chosen = f32[10]{0} conditional(%p, %x, %x), true_computation=%yes, false_computation=%no
}
"""
    assert [one.kind for one, _ in hlo.kernels(text)] == ["add", "negate"]
