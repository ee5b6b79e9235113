"""A GGUF file whose weights are quantised once more, to another type: the control of what quantised weights show.

Numbers of such a model hold the quantisation's own error, which nobody can take off without the original weights. A
second error of about its size, made in the same way, says how much a number owes to the first.
"""

from __future__ import annotations

from pathlib import Path

from yarnlab.hub.errors import HubError


def requantise(source: Path, quantisation: str, kind: str, target: Path) -> None:
    """Write `source` to `target` with its tensors of the type `quantisation` quantised once more, to `kind`.

    Tensors of other types stay as they are, bit for bit: plain ones, and matrices that the file holds in a finer type,
    for which `kind` would be a larger error than the file's own. Both types' blocks lie along a row.

    Args:
        quantisation: the type that most weights of the file have (gguf.inspect).
        kind: one of study.data.Requantisation.

    Memory: all weights in `kind`, and one tensor in fp32. Raises HubError where `kind` moves nothing: it is the file's
    own type. OSError as writing does.
    """
    import gguf

    if kind == quantisation:
        raise HubError(
            f"{source}: its weights are {quantisation} already, which `requantise: {kind}` would not move: name another"
        )
    wanted, reader = gguf.GGMLQuantizationType[kind], gguf.GGUFReader(source)
    family = reader.fields[gguf.Keys.General.ARCHITECTURE].contents()
    writer = gguf.GGUFWriter(target, family, endianess=reader.endianess)
    writer.data_alignment = reader.alignment
    for field in reader.fields.values():
        # The writer makes these by itself.
        if field.name != gguf.Keys.General.ARCHITECTURE and not field.name.startswith("GGUF."):
            items = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=items)
    for tensor in reader.tensors:
        data, written = tensor.data, tensor.tensor_type
        if written.name == quantisation:
            data, written = gguf.quantize(gguf.dequantize(data, written), wanted), wanted
        writer.add_tensor(tensor.name, data, raw_dtype=written)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
