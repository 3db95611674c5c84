"""The book's page of execution providers, made from the records in `data/ep_records` (`make providers`)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from measured import table

MODELS = {
    "plain": "classifier, free batch",
    "fixed": "classifier, batch 2",
    "int8": "classifier in int8, batch 2",
    "mixed": "one `Unique` in the middle",
    "scattered": "three `Det` between other nodes",
}
NOBODY = ("CUDA", "TensorRT", "TensorRT RTX", "MIGraphX", "DirectML", "Core ML", "VitisAI")
ADD = """## Add a record

Nobody has recorded {missing} yet: no such device was at hand. If you have one, install its package of ONNX Runtime and run

```
python course_utils/ep_experiment --provider CUDAExecutionProvider --out data/ep_records/cuda.json
```

in a checkout of the course, or `--plugin` with the module of a plug-in package. It needs NumPy, onnx and ONNX Runtime, not the course.
The file tells the brand of your processor, the number of its cores, the devices, the versions and the results, and nothing else;
`data/ep_records/schema.json` describes it. Send it as a pull request: tests read it, and this page shows it."""


def page(records: dict[str, dict[str, Any]]) -> str:
    """All records side by side: who and where, which nodes each provider takes, compiled files, times."""
    shown = {name: record for name, record in records.items() if record["plugin"] or name != "cpu"}
    there = {name: record for name, record in shown.items() if record["devices"] or not record["plugin"]}
    known = {record["provider"].removesuffix("ExecutionProvider").lower() for record in records.values()}
    missing = [name for name in NOBODY if name.replace(" ", "").lower() not in known]
    compiled = [[name, *row] for name, record in there.items() for row in _compiled(record)]
    times = [[name, *row] for name, record in there.items() for row in _times(record)]
    parts = [
        "# Execution providers, recorded",
        "The same experiment on several execution providers: small models, asked for in several ways. {doc}`Lesson 05 "
        "<notebooks/05_execution_providers>` explains it. A record belongs to one machine on one day, and it was written by a "
        "program, never by hand.",
        table(
            ["record", "provider of", "runtime", "machine", "date", "devices"], [_who(n, r) for n, r in records.items()]
        ),
        "## Which nodes it takes",
        "Asked for by its devices (a plug-in) or by its name. *Nodes*: on the provider, and on the CPU. *Copies*: between the "
        "device and the processor, in one run. *Difference*: the largest one from the output of the CPU provider.",
        table(
            ["model", "record", "nodes", "kernels that ran", "copies", "difference"],
            [row for model in MODELS for name, record in there.items() for row in _placed(model, name, record)],
        ),
    ]
    if compiled:
        parts += [
            "## Compiled files",
            "`ModelCompiler` writes the graph as the provider has compiled it. *Created faster*: time of creating a session "
            "from the plain file ÷ from the compiled one.",
            table(["record", "model", "plain", "context inside", "outside", "created faster", "on the CPU"], compiled),
        ]
    if times:
        parts += [
            "## Times",
            "How many times faster than the CPU provider, in the same process, one thread each. Where a program stands in "
            "for the device, nothing is timed.",
            table(["record", "model", "ratio"], times),
        ]
    return "\n\n".join([*parts, ADD.format(missing=", ".join(missing))]) + "\n"


def _who(name: str, record: dict[str, Any]) -> list[str]:
    devices = ", ".join(f"{d['type']} ({d['vendor']})" for d in record["devices"]) or "none on this machine"
    if record["emulated"]:
        devices += f"; {record['emulated']}"
    machine = f"{record['machine']['processor']}, {record['machine']['cores']} cores"
    return [name, record["versions"]["package"], record["versions"]["onnxruntime"], machine, record["date"], devices]


def _placed(model: str, name: str, record: dict[str, Any]) -> list[list[str]]:
    wanted = record["provider"].removesuffix("ExecutionProvider")
    title = f"{wanted} by device" if record["plugin"] else f"{wanted} first, then CPU"
    entry = next((e for e in record["placements"] if (e["model"], e["title"]) == (model, title)), None)
    if entry is None:
        return []
    if entry["error"]:
        return [[MODELS[model], name, "no session", "", "", ""]]
    nodes = Counter(provider for provider, names in entry["recorded"] or [] for _ in names)
    ran = Counter(provider for provider, op in entry["ran"] if "Memcpy" not in op)
    copies = sum("Memcpy" in op for _, op in entry["ran"])
    return [[MODELS[model], name, _both(nodes, record), _both(ran, record), str(copies), f"{entry['difference']:.1e}"]]


def _both(count: Counter[str], record: dict[str, Any]) -> str:
    own = count.pop(record["provider"], 0)
    return f"{own} + {sum(count.values())}"


def _compiled(record: dict[str, Any]) -> list[list[str]]:
    rows = []
    for row in record["compiled"]:
        if row["error"]:
            rows.append([MODELS[row["model"]], "", row["error"], "", "", ""])
            continue
        sizes = [" + ".join(f"{n:,} B" for n in row[place]["files"]) for place in ("inside", "outside")]
        faster = " / ".join(f"{row[place]['creation']:.1f}×" for place in ("inside", "outside"))
        rows.append([MODELS[row["model"]], f"{row['plain_bytes']:,} B", *sizes, faster, row["on_cpu"]])
    return rows


def _times(record: dict[str, Any]) -> list[list[str]]:
    return [
        [f"{row['model']}, batch {row['batch']}", f"{row['ratio']:.2f}×"]
        for row in record["latencies"]
        if row["provider"] == record["provider"]
    ]
