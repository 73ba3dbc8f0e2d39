"""What the events of the cells of a run have in common, serialised once.

A run reports two events for every cell of every asset: planned, and materialized. Those of one
asset differ in the cell, the time and seldom the metadata; all else is a template. The planned ones
of an asset come as one event that names all its cells. From a template come, without serialising
the event,

- the text that stock storage would have stored, in pieces that SQL can put together again
  (run_shard.py), and
- a short text for the index, which Dagster reads into the same event but for `LEFT_OUT`.

Here is only what one event is. Any event that is not exactly its template and a plain partition
key gets None here, and is stored as stock storage stores it.
"""

from __future__ import annotations

import datetime as dt
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.definitions.events import AssetMaterialization
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEventType,
    StepMaterializationData,
)
from dagster._core.storage.tags import MULTIDIMENSIONAL_PARTITION_PREFIX
from dagster._serdes import serialize_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dagster import MetadataValue
    from dagster._core.events import DagsterEvent
    from dagster._core.events.log import EventLogEntry

LEFT_OUT = (
    "logging_tags",
    "message",
    "pid",
    "solid_handle",
    "step_handle",
    "step_key",
    "step_kind_value",
)
"""Fields of the event, as stored, that the index's copy of a cell's event does not have.

The run's own log has them. What reads the index asks what happened to which cell of which asset in
which run and step; the step of a materialization is the entry's. The entry has no message either.
"""

_PARTITION = "a partition that is in no event 6b1f0e7a"
_FIRST, _SECOND = (
    "a first dimension in no event 6b1f0e7a",
    "a second dimension in no event 6b1f0e7a",
)
_TIMESTAMP = 6.0225e123
_NO_METADATA = '"metadata_entries": []'

_EPOCH, _MICROSECOND = dt.datetime(1970, 1, 1), dt.timedelta(microseconds=1)  # noqa: DTZ001

_SEPARATOR = "|"
"""Between the dimensions in the text of a two-dimensional partition key."""


class Template:
    """All but the cell, the time and the metadata of the events of one kind of one asset."""

    def __init__(self, entry: EventLogEntry) -> None:
        """Take what `entry` shares with its like.

        Raises `NotAlike` when the event has something else that may differ from cell to cell.
        """
        event = entry.dagster_event
        if event is None or entry.error_info is not None:
            raise NotAlike
        data = event.event_specific_data
        dimensions: list[str] = []
        tags: dict[str, str] = {}
        if isinstance(data, StepMaterializationData) and not data.asset_lineage:
            tags = dict(data.materialization.tags or {})
            dimensions = sorted(key for key in tags if _is_dimension(key))
            self.asset_key = data.materialization.asset_key
        elif isinstance(data, AssetMaterializationPlannedData) and data.partitions_subset is None:
            self.asset_key = data.asset_key
        else:
            raise NotAlike
        if len(dimensions) not in (0, 2):
            raise NotAlike
        self.entry = entry
        self.event = event
        self.data_type = type(data)
        self.dimensions = tuple(dimensions)
        self.tags = {key: value for key, value in tags.items() if key not in dimensions}
        self.tag_keys = list(tags)
        self.kind = (self.asset_key.to_string(), event.event_type_value)
        """(asset, event type), as the columns of a row have them."""
        self.tags_to_index = [item for item in self.tags.items() if item[0] == DATA_VERSION_TAG]
        """What automation and data versions look up by asset. Dimensions stand in the event."""
        self.with_metadata = isinstance(data, StepMaterializationData)

        metadata = ["metadata_entries"] if self.with_metadata else []
        parts = [_FIRST, _SECOND][: len(self.dimensions)]
        stock = serialize_value(self._without_cell())
        self.pieces = _split(stock, [*metadata, _PARTITION, *parts, _TIMESTAMP], json.dumps)
        """The stock text around: metadata (if any), partition, dimensions (if any), timestamp."""
        short = self._shortened(stock)
        named_by = parts or [_PARTITION]
        self._short_pieces = _split(short, [*metadata, *named_by, _TIMESTAMP], _compact)

    def _without_cell(self) -> EventLogEntry:
        data: Any = self.event.event_specific_data
        if isinstance(data, StepMaterializationData):
            tags = data.materialization.tags
            if tags is not None:
                tags = {**tags, **dict(zip(self.dimensions, (_FIRST, _SECOND), strict=False))}
            bare = data.materialization._replace(partition=_PARTITION, tags=tags, metadata={})
            data = data._replace(materialization=bare)
        else:
            data = data._replace(partition=_PARTITION)
        event = self.event._replace(event_specific_data=data)
        return self.entry._replace(timestamp=_TIMESTAMP, dagster_event=event)

    def _shortened(self, stock: str) -> str:
        """Leave out what nobody reads in the index, and what is null or said twice."""
        entry = json.loads(stock)
        event = entry["dagster_event"]
        for field in LEFT_OUT:
            event.pop(field)
        entry.pop("message")  # always empty: the field of an older Dagster
        entry.pop("pipeline_name")  # the event says it
        entry["user_message"] = ""
        if not self.with_metadata:
            entry.pop("step_key")
        data = event["event_specific_data"]
        if self.with_metadata:
            materialization = data["materialization"]
            # Built from its path and its dimensions by the constructor.
            materialization["asset_key"] = materialization["asset_key"]["path"]
            if self.dimensions:
                del materialization["partition"]
            if not data["asset_lineage"]:
                del data["asset_lineage"]
        # The constructor wants this one, null or not.
        return _compact({**_without_nulls(entry), "error_info": None})

    def cell(self, entry: EventLogEntry) -> CellEvent | None:
        """`entry`, of a plain partition, as one of this template's events; None if it is not."""
        event = entry.dagster_event
        if event is None or not (self._same_entry(entry) and self._same_event(event)):
            return None
        data = event.event_specific_data
        metadata: Mapping[str, MetadataValue] = {}
        if isinstance(data, StepMaterializationData):
            made = data.materialization
            alike = (
                made.asset_key == self.asset_key
                and not data.asset_lineage
                and self._same_but_cell(made)
            )
            partition, metadata = made.partition, made.metadata
        elif isinstance(data, AssetMaterializationPlannedData):
            alike = data.asset_key == self.asset_key and data.partitions_subset is None
            partition = data.partition
        else:
            return None
        if not alike or partition is None:
            return None
        return CellEvent(self, str(partition), _metadata_text(metadata), Moment.of(entry.timestamp))

    def _same_entry(self, entry: EventLogEntry) -> bool:
        mine = self.entry
        return (
            entry.run_id == mine.run_id
            and entry.step_key == mine.step_key
            and entry.job_name == mine.job_name
            and entry.level == mine.level
            and entry.user_message == mine.user_message
            and entry.error_info is None
        )

    def _same_event(self, event: DagsterEvent) -> bool:
        own = self.event
        return (
            event.event_type_value == own.event_type_value
            and type(event.event_specific_data) is self.data_type
            and event.job_name == own.job_name
            and event.step_key == own.step_key
            and _same_handle(event.step_handle, own.step_handle)
            and _same_handle(event.node_handle, own.node_handle)
            and event.step_kind_value == own.step_kind_value
            and event.message == own.message
            and event.pid == own.pid
            and _same_texts(event.logging_tags, own.logging_tags)
        )

    def _same_but_cell(self, made: AssetMaterialization) -> bool:
        tags = made.tags or {}
        representative = self.event.event_specific_data.materialization  # type: ignore[union-attr]
        return (
            made.description == representative.description
            and (made.tags is None) == (representative.tags is None)
            and list(tags) == self.tag_keys
            and all(tags[key] == value for key, value in self.tags.items())
            and (not self.dimensions or self._says_its_dimensions(made.partition, tags))
        )

    def _says_its_dimensions(self, partition: str | None, tags: Mapping[str, str]) -> bool:
        """Whether the key can be cut into its dimensions, as the run's shard does."""
        parts = [tags[key] for key in self.dimensions]
        return partition == _SEPARATOR.join(parts) and partition.count(_SEPARATOR) == 1

    def short_text(self, cell: CellEvent) -> str:
        """The index's text of the event."""
        varying = []
        if self.with_metadata:
            varying.append(f'"metadata_entries":{cell.metadata},' if cell.metadata else "")
        if self.dimensions:
            varying += [f'"{part}"' for part in cell.partition.split(_SEPARATOR)]
        else:
            varying.append(f'"{cell.partition}"')
        varying.append(cell.moment.in_event)
        pieces = self._short_pieces
        return "".join(text for pair in zip(pieces, [*varying, ""], strict=True) for text in pair)


class Moment(NamedTuple):
    """When an event happened, in the forms in which the shards have it."""

    in_event: str
    """Seconds since 1970, as they stand in the event's text."""
    in_utc: str
    """The column `timestamp` as stock storage writes it."""
    microseconds: int
    """The same, since 1970."""

    @classmethod
    def of(cls, seconds: float) -> Moment:
        """The moment that an entry's timestamp names."""
        in_utc = dt.datetime.fromtimestamp(seconds, dt.UTC).replace(tzinfo=None)
        return cls(repr(seconds), stock_moment(in_utc), (in_utc - _EPOCH) // _MICROSECOND)


def stock_moment(timestamp: dt.datetime) -> str:
    """A time in UTC as stock storage writes it to a shard."""
    return timestamp.isoformat(" ", "microseconds")


class CellEvent(NamedTuple):
    """An event of one cell: a template, and what is its own."""

    template: Template
    partition: str
    metadata: str
    """The JSON text of its metadata; empty if it has none."""
    moment: Moment

    def index_values(self) -> tuple[str | None, ...]:
        """The event's row in the index: run, text, type, time, step, asset, partition."""
        template = self.template
        asset_key, event_type = template.kind
        return (
            template.entry.run_id,
            template.short_text(self),
            event_type,
            self.moment.in_utc,
            template.event.step_key,
            asset_key,
            self.partition,
        )


class NotAlike(Exception):  # noqa: N818 - never leaves this module: an answer, not an error
    """An event that no template can stand for."""


class Templates:
    """The templates of one batch, found as its events are read."""

    def __init__(self) -> None:
        """Begin with none."""
        self._last: Template | None = None
        self._all: list[Template] = []

    def cell(self, entry: EventLogEntry) -> CellEvent | None:
        """`entry` as the event of a cell, or None where it has to be stored as any other."""
        partition = _partition(entry.dagster_event)
        if partition is None or not _plain(partition):
            return None
        for template in self._latest_first():
            found = template.cell(entry)
            if found is not None:
                self._last = template
                return found
        if not _of_a_cell(entry.dagster_event):
            return None
        try:
            template = Template(entry)
        except NotAlike:
            return None
        found = template.cell(entry)
        if found is not None:
            self._all.append(template)
            self._last = template
        return found

    def planned(self, entry: EventLogEntry) -> Iterator[CellEvent | EventLogEntry]:
        """The events of the cells that `entry` names, as Dagster would have reported each.

        Those that no template can stand for as entries.
        """
        alike: CellEvent | None = None
        for key in planned_cells(entry) or ():
            text = str(key)
            if alike is None or not _plain(text):
                alone = planned_alone(entry, text)
                found = self.cell(alone)
                alike = alike or found
                yield found or alone
            else:
                yield alike._replace(partition=text)

    def _latest_first(self) -> Iterator[Template]:
        if self._last is not None:
            yield self._last
        yield from (template for template in self._all if template is not self._last)


def planned_cells(entry: EventLogEntry) -> Iterable[str] | None:
    """The cells of one asset that the event says are planned; None if it is no such event."""
    data = entry.dagster_event and entry.dagster_event.event_specific_data
    if isinstance(data, AssetMaterializationPlannedData) and data.partitions_subset is not None:
        return data.partitions_subset.get_partition_keys()
    return None


def planned_alone(entry: EventLogEntry, cell: str) -> EventLogEntry:
    """What Dagster reports of one of the cells where it reports each by itself."""
    event = entry.get_dagster_event()
    asset_key = event.asset_materialization_planned_data.asset_key
    data = AssetMaterializationPlannedData(asset_key, partition=cell)
    return entry._replace(dagster_event=event._replace(event_specific_data=data))


def _split(text: str, marks: Sequence[str | float], dumps: Callable[[Any], str]) -> tuple[str, ...]:
    """The text around the marks, each of which must be in it once, in this order."""
    pieces = []
    for mark in marks:
        json_mark = _NO_METADATA_IN[dumps] if mark == "metadata_entries" else dumps(mark)
        before, found, text = text.partition(json_mark)
        if not found or json_mark in text:
            raise NotAlike
        pieces.append(before)
    return (*pieces, text)


def _of_a_cell(event: DagsterEvent | None) -> bool:
    return event is not None and event.event_type_value in (
        DagsterEventType.ASSET_MATERIALIZATION.value,
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
    )


def _partition(event: DagsterEvent | None) -> str | None:
    """The cell of an event that may have a template."""
    data = event and event.event_specific_data
    if isinstance(data, StepMaterializationData):
        return data.materialization.partition
    return data.partition if isinstance(data, AssetMaterializationPlannedData) else None


def _is_dimension(key: str) -> bool:
    return key.startswith(MULTIDIMENSIONAL_PARTITION_PREFIX)


def _same_texts(some: Mapping[str, str] | None, others: Mapping[str, str] | None) -> bool:
    return some is others or (some == others and some is not None and list(some) == list(others))  # type: ignore[arg-type]


def _same_handle(one: Any, other: Any) -> bool:
    # Handles are tuples: those of two classes may be equal, and are not the same.
    return one is other or (type(one) is type(other) and one == other)


def _plain(key: str) -> bool:
    """Whether JSON writes the key as it is, between quotes."""
    return key.isascii() and key.isprintable() and '"' not in key and "\\" not in key


def _metadata_text(metadata: Mapping[str, MetadataValue]) -> str:
    if not metadata:
        return ""
    if len(metadata) == 1:
        ((name, value),) = metadata.items()
        # Most cells say how many rows they have, and most have as many. (Not a bool: it equals 1.)
        if isinstance(value, dg.IntMetadataValue) and type(value.value) is int:
            return _count_text(name, value.value)
    return _serialised(metadata)


@lru_cache(maxsize=1000)
def _count_text(name: str, count: int) -> str:
    return _serialised({name: dg.IntMetadataValue(count)})


def _serialised(metadata: Mapping[str, MetadataValue]) -> str:
    # _make and _replace: the constructor would normalise what is normalised already.
    bare = _BARE._replace(metadata=metadata)
    text = serialize_value(bare)
    return text.removeprefix(_BEFORE_METADATA).removesuffix(_AFTER_METADATA)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


_NO_METADATA_IN = {json.dumps: _NO_METADATA, _compact: _NO_METADATA.replace(" ", "") + ","}

_BARE = AssetMaterialization("asset")
_BEFORE_METADATA, _AFTER_METADATA = (
    part + rest
    for part, rest in zip(
        serialize_value(_BARE).split(_NO_METADATA), ('"metadata_entries": ', ""), strict=True
    )
)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
