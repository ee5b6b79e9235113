"""Loads the study; every rule takes its names, sections and code keys from `flow`."""

import sys
from pathlib import Path

SOURCE = Path(workflow.basedir) / "src"
sys.path.insert(0, str(SOURCE))

from yarnlab import fork_server, outdated
from yarnlab.cluster import slurm
from yarnlab.cluster.coordinator import check_results, check_writable, raise_open_files, take_over
from yarnlab.cluster.failures import explain
from yarnlab.errors import UserError
from yarnlab.cluster.resources import JobResources
from yarnlab.machine.processor import cpu_quota
from yarnlab.machine.record import this_machine
from yarnlab.processes import hold_environment
from yarnlab.results.registry import paper_targets
from yarnlab.study.evaluations import KINDS
from yarnlab.tracking.mirror import start_mirror
from yarnlab.tracking.publication import publication_state
from yarnlab.workflow import Workflow

hold_environment()
try:
    flow = Workflow.chosen(config, Path(workflow.basedir) / "config" / "studies")
    if workflow.is_main_process:
        raise_open_files()
        check_writable(dry=workflow.dryrun)
except UserError as mistake:
    sys.exit(f"The study can't be run:\n{mistake}")
flow.export_environment(SOURCE)
machine = JobResources(flow.study)
if workflow.is_main_process:
    outdated.warn(flow)
    if not workflow.dryrun:
        take_over(flow.root)


pathvars:
    results=flow.root,
    logs=f"{flow.root}/logs",


wildcard_constraints:
    asset="|".join(flow.assets()) or "-",
    model="|".join(flow.models),
    corpus="|".join(flow.corpora()),


onstart:
    try:
        check_results(Path(flow.root))
    except UserError as mistake:
        sys.exit(f"The study can't be run:\n{mistake}")
    slurm.check(workflow)
    flow.export_forced(workflow.dag_settings)
    if workflow.local_exec:
        if workflow.cores > (quota := cpu_quota()):
            print(
                f"{workflow.cores} cores are used, and this container may use {quota:g}: give --cores {max(1, int(quota))}",
                file=sys.stderr,
            )
        this_machine()  # before anything else computes: it may have to be measured
    start_mirror(Path(flow.root), flow.executions())
    fork_server.start(local=workflow.local_exec)


onerror:
    print(*explain(log), *flow.partial_report(), sep="\n", file=sys.stderr)
