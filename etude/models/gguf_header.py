"""Checks the header of a GGUF file before it is read, and isolates the file.

The header has the number of fields and tensors, their lengths and the place of the weights (format versions 2 and 3, little-endian;
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Readers trust it: they would loop over a list of 10^18 numbers, or build a model
of 10^6 layers. Here each length is compared with the rest of the file before it is used.

Other files in the folder (`tokenizer_config.json`, `adapter_config.json`) may name code to run or another model to load, so transformers
gets a folder with only this file.
"""

import math
import mmap
import re
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _LIST = 8, 9
_LAYER = re.compile(r"blk\.(\d+)\.")


@contextmanager
def isolated_file(path: Path) -> Iterator[Path]:
    """Provide a temporary folder that holds only a link to the file."""
    with tempfile.TemporaryDirectory(prefix="etude-gguf-") as folder:
        (Path(folder) / path.name).symlink_to(path.resolve())
        yield Path(folder)


class Unreadable(ValueError):
    """The file must not be read; the message says why."""


def check_gguf(path: Path) -> None:
    """Raise Unreadable for a file that is not GGUF, is truncated, or has more layers than weights for them."""
    if path.stat().st_size < 24:
        raise Unreadable(f"{path.name} has {path.stat().st_size} bytes, so it is not a GGUF file: it is empty or truncated")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != b"GGUF":
            raise Unreadable(f"{path.name} is not a GGUF file: it does not begin with GGUF")
        try:
            _check(_Header(data, path.name))
        except Unreadable:
            raise
        except (ValueError, KeyError, OverflowError, struct.error) as error:
            raise Unreadable(f"{path.name} is damaged: its header can't be read ({type(error).__name__}: {error})") from error


@dataclass
class _Header:
    """A reader of the header's values, one after another."""

    data: Any
    name: str
    at: int = 4
    fields: dict[str, Any] = field(default_factory=dict)

    def take(self, form: str) -> Any:
        size = struct.calcsize("<" + form)
        self.need(size)
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += size
        return value

    def need(self, size: int) -> None:
        if self.at + size > len(self.data):
            raise Unreadable(f"{self.name} is truncated: its header goes on beyond the end of the file, at {len(self.data):,} bytes")

    def text(self) -> str:
        length = self.take("Q")
        self.need(length)
        self.at += length
        return bytes(self.data[self.at - length : self.at]).decode(errors="replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        """Read a value; for a list, return its length."""
        if kind == _STRING:
            return self.text()
        if kind != _LIST:
            return self.take(_SCALARS[kind])
        inner, length = self.take("I"), self.take("Q")
        if depth > 3:
            raise ValueError("lists within lists within lists")
        if inner in _SCALARS:
            size = length * struct.calcsize("<" + _SCALARS[inner])
            self.need(size)
            self.at += size
        else:
            for _ in range(length):  # each consumes some of the file, or raises
                self.value(inner, depth + 1)
        return length


def _check(header: _Header) -> None:
    version = header.take("I")
    if version not in (2, 3):
        raise Unreadable(f"{header.name} is a GGUF file of version {version}, expected 2 or 3, little-endian")
    num_tensors, num_fields = header.take("Q"), header.take("Q")
    for _ in range(num_fields):
        name = header.text()
        header.fields[name] = header.value(header.take("I"))
    ends, layers = [0], set()
    for _ in range(num_tensors):
        name = header.text()
        shape = [header.take("Q") for _ in range(_at_most(header.take("I"), 8))]
        kind, offset = header.take("I"), header.take("Q")
        ends.append(offset + _bytes_of(math.prod(shape), kind))
        if found := _LAYER.match(name):
            layers.add(found[1])
    alignment = header.fields.get("general.alignment", 32)
    needed = -(-header.at // alignment) * alignment + max(ends)
    if needed > len(header.data):
        raise Unreadable(f"{header.name} is truncated: it has {len(header.data):,} bytes, its weights end at {needed:,}: fetch it again")
    key = f"{header.fields.get('general.architecture')}.block_count"
    count = header.fields.get(key, len(layers))
    if not isinstance(count, int) or not 0 <= count <= len(layers):
        raise Unreadable(f"{header.name} names {count!r} layers ({key}), but has the weights of {len(layers)}")


def _at_most(number: int, most: int) -> int:
    if number > most:
        raise ValueError(f"a tensor of {number} dimensions")
    return number


def _bytes_of(num_values: int, kind: int) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    return num_values // block * size
