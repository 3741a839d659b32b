# SPDX-License-Identifier: BSD-3-Clause
"""`xmem-stress` and `xmem-stress-frames`: heaps, pools and page frames."""

from collections.abc import Mapping
from typing import Any

import click

from xmem.cli.contenders import ENGINES
from xmem.cli.options import (
    ALL,
    Decorator,
    Hardened,
    arena_bytes_option,
    engine_option,
    hardened_option,
    interface_option,
    quick_option,
    refuse_both,
    refuse_legacy,
)
from xmem.cli.stress.options import (
    CONTEXT,
    SessionOptions,
    as_arguments,
    session_options,
)
from xmem.cli.stress.session import run_session
from xmem.stress.hunt import BATCH_OPS, EPISODE_OPS
from xmem.stress.loads import FRAME_LOADS, LOADS
from xmem.stress.workloads import HeapWorkload

CHECK_EVERY = 200_000
#: A fault is replayed with no check before the end.
NO_CHECK = 1_000_000


def load_option(loads: Mapping[str, Any], default: str, what: str) -> Decorator[Any]:
    """Return the option that names a load; its help says what each load is."""
    lines = "; ".join(f"{name}: {load.what}" for name, load in loads.items())
    return click.option(
        "--load",
        type=click.Choice(list(loads)),
        default=default,
        help=f"{what} and lifetimes. {lines}.",
    )


@click.command(context_settings=CONTEXT)
@engine_option(ENGINES, default="tlsf")
@interface_option
@hardened_option
@quick_option
@load_option(LOADS, "mixed", "Sizes")
@arena_bytes_option(show_default="as the load needs")
@session_options(CHECK_EVERY)
def stress(
    session: SessionOptions,
    engine: str | None,
    interface: str | None,
    hardened: Hardened,
    quick: bool,
    load: str,
    arena_bytes: int | None,
) -> None:
    """Run mixed verbs on one heap; verify every block and every invariant.

    Exit status: 0 no fault was found; 1 a fault was found; 2 usage.
    """
    refuse_both(engine, interface)
    if interface is None:
        engine = engine or ENGINES[0]
    name = interface or engine or ""
    refuse_legacy([name], hardened, quick)
    settings = {"interface": interface} if interface else {"engine": engine}
    extra = {"hardened": hardened, "quick": quick}
    size = arena_bytes or LOADS[load].arena_bytes
    workload = HeapWorkload(
        "heap" if interface else "pool",
        settings | {key: value for key, value in extra.items() if value},
        load,
        size,
        session.threads,
        options=as_arguments(
            engine=engine,
            interface=interface,
            quick=quick,
            hardened=ALL if hardened is True else hardened,
            arena_bytes=size,
            check_every=NO_CHECK,
        ),
    )
    run_session(
        "xmem-stress",
        workload,
        f"{name}, {session.trace or load}",
        session,
        EPISODE_OPS,
        BATCH_OPS,
    )


@click.command(context_settings=CONTEXT)
@load_option(FRAME_LOADS, "orders", "Lengths of page runs")
@arena_bytes_option(show_default="as the load needs")
@session_options(CHECK_EVERY)
def stress_frames(session: SessionOptions, load: str, arena_bytes: int | None) -> None:
    """Allocate and free page runs; verify every page and the frame table.

    Exit status: 0 no fault was found; 1 a fault was found; 2 usage.
    """
    size = arena_bytes or FRAME_LOADS[load].arena_bytes
    arguments = as_arguments(arena_bytes=size, check_every=NO_CHECK)
    run_session(
        "xmem-stress-frames",
        HeapWorkload("frames", {}, load, size, session.threads, options=arguments),
        f"page frames, {session.trace or load}",
        session,
        EPISODE_OPS,
        BATCH_OPS,
    )
