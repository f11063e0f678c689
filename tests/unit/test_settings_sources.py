"""Checks how settings are loaded from a file with lists of tables, and which variables are ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field, PlainValidator, SecretStr, model_validator

from lessor_server.settings import parsers
from lessor_server.settings.model import Settings, load
from lessor_server.settings.sources import ConfigModel, Conflict, SettingsError, load_text


class Rule(ConfigModel):
    """What a policy allows."""

    path: str
    capability: Literal["read", "list"] = "read"
    max_leases: Annotated[int, PlainValidator(parsers.count(1, 10))] = 1


class Policy(ConfigModel):
    """A list of tables with a rule of its own."""

    name: str
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def check_paths(self) -> Policy:
        if len({rule.path for rule in self.rules}) < len(self.rules):
            raise parsers.InvalidValue("has two rules for one path", "merge them")
        return self


class Store(ConfigModel):
    """A table with a key that it needs."""

    secret: SecretStr = Field(min_length=8)
    size: Annotated[int, PlainValidator(parsers.count(1, 10))] = 1
    kind: Literal["a", "b"] = "a"


class File(ConfigModel):
    """A whole file."""

    policies: tuple[Policy, ...] = ()
    store: Store | None = None

    def find_conflicts(self, given: AbstractSet[str]) -> Iterator[tuple[str, str, str]]:
        if "policies" in given and len(self.policies) > 1:
            yield "policies", "has more than one", "remove the others"


def lines(text: str, environ: Mapping[str, str] = {}) -> list[str]:
    """Return the problems of a file, each as it is printed."""
    with pytest.raises(SettingsError) as caught:
        load_text(File, text, environ, "access.toml")
    return str(caught.value).splitlines()


def test_tables_in_lists_are_loaded() -> None:
    text = '[[policies]]\nname = "a"\n[[policies.rules]]\npath = "x"\n[store]\nsecret = "long enough"\n'
    file = load_text(File, text, {"LESSOR_STORE_SIZE": "3"})
    assert file.policies == (Policy(name="a", rules=(Rule(path="x"),)),)
    assert file.store is not None
    assert file.store.size == 3


def test_a_problem_in_a_list_has_its_path_with_the_name_of_the_item() -> None:
    text = """
        [[policies]]
        name = "deployer"
        [[policies.rules]]
        path = "x"
        capability = "write"
        [[policies.rules]]
        path = "y"
        max_leases = 11
        max_lease = 1
        [[policies]]
        name = "reader"
        rules = [{ path = "x" }, { path = "x" }]
        """
    assert lines(text) == [
        "access.toml: policies[0](deployer).rules[0].capability: is not 'read' or 'list'; correct it",
        (
            'access.toml: policies[0](deployer).rules[1].max_leases: "11" is not a whole number '
            "from 1 to 10; give a number within that range"
        ),
        (
            "access.toml: policies[0](deployer).rules[1].max_lease: is not a setting; "
            "did you mean policies.rules.max_leases?"
        ),
        "access.toml: policies[1](reader): has two rules for one path; merge them",
    ]


def test_a_table_that_lacks_a_key_is_named_once() -> None:
    assert lines("[[policies]]\nrules = [{}]\n[store]\n") == [
        f"access.toml: {where}: is set without {missing}; add it, or remove the rest"
        for where, missing in (
            ("policies[0].rules", "policies[0].name"),
            ("policies[0].rules[0]", "policies[0].rules[0].path"),
            ("store", "store.secret"),
        )
    ]


def test_a_conflict_is_reported_with_invalid_values() -> None:
    text = '[store]\nsecret = "short"\n[[policies]]\nname = "a"\n[[policies]]\nname = "b"\n'
    assert lines(text) == [
        "access.toml: store.secret: Value should have at least 8 items after validation, not 5; correct it",
        "access.toml: policies: has more than one; remove the others",
    ]


def test_no_problem_shows_or_carries_what_was_given() -> None:
    with pytest.raises(SettingsError) as caught:
        load_text(File, 'policies = "hush"\n[store]\nsecret = ["hush"]\n', {})
    assert "hush" not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_a_value_where_tables_belong_hides_no_variable() -> None:
    assert lines("store = 1\npolicies = [1]\n", {"LESSOR_STORE_KIND": "x", "LESSOR_STORES": ""}) == [
        "access.toml: store: is not a setting but a table of settings; write it as a table",
        "access.toml: policies[0]: is not a setting but a table of settings; write it as a table",
        "LESSOR_STORE_KIND: store.kind: is not 'a' or 'b'; correct it",
        "LESSOR_STORE_KIND: store.kind: is set without store.secret; add it, or remove the rest",
        "LESSOR_STORES: is not a setting; did you mean LESSOR_STORE_SIZE?",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "LESSOR_SERVICE_HOST",
        "LESSOR_SERVICE_PORT",
        "LESSOR_SERVICE_PORT_GRPC",
        "LESSOR_SERVICE_PORT_HTTP_METRICS",
        "LESSOR_PORT",
        "LESSOR_PORT_50051_TCP",
        "LESSOR_PORT_50051_TCP_PROTO",
        "LESSOR_PORT_50051_TCP_PORT",
        "LESSOR_PORT_50051_TCP_ADDR",
        "LESSOR_PORT_53_UDP_ADDR",
        "LESSOR_PORT_9_SCTP_PROTO",
        "LESSOR_API_SERVICE_HOST",
        "LESSOR_EU_WEST_1_PORT_443_TCP_ADDR",
    ],
)
def test_the_variables_of_a_kubernetes_service_are_ignored(name: str) -> None:
    assert load(None, {name: "tcp://10.0.0.1:50051"}) == Settings()


@pytest.mark.parametrize(
    "name",
    [
        "LESSOR_PORT_50051",
        "LESSOR_PORT_50051_TCP_HOST",
        "LESSOR_PORT_50051_ICMP",
        "LESSOR_PORT_X_TCP",
        "LESSOR_HOST",
        "LESSOR_REPORT",
        "LESSOR_SERVICE",
        "LESSOR_SERVICE_PORTS",
        "LESSOR_service_host",
    ],
)
def test_a_variable_that_only_resembles_those_of_kubernetes_stops_the_start(name: str) -> None:
    assert lines("", {name: "1"})[0].startswith(f"{name}: is not a setting; ")


def test_a_setting_that_ends_like_a_variable_of_kubernetes_would_still_be_read() -> None:
    class Some(ConfigModel):
        port: str

    class Other(ConfigModel):
        some: Some

    assert load_text(Other, "", {"LESSOR_SOME_PORT": "7"}).some.port == "7"


class Item(ConfigModel):
    """A table that is checked although it lacks a key."""

    needed: ClassVar[tuple[str, ...]] = ("id",)

    id: Annotated[int, PlainValidator(parsers.count(1, 10))] = 1
    sizes: tuple[Annotated[int, PlainValidator(parsers.count(1, 10))], ...] = ()
    pairs: dict[str, Annotated[int, PlainValidator(parsers.count(1, 10))]] = {}  # noqa: RUF012
    kind: str = Field(default="a", alias="type")

    def find_conflicts(self, given: AbstractSet[str]) -> Iterator[Conflict]:
        yield from (
            (("sizes", index), "is 7", "take 8") for index, size in enumerate(self.sizes) if size == 7
        )
        yield from ((("pairs", key), "is 7", "take 8") for key, size in self.pairs.items() if size == 7)
        if "type" in given and self.kind == "b":
            yield "type", "is b", "take c"


class Items(ConfigModel):
    """A list of such tables."""

    items: tuple[Item, ...] = ()

    def find_conflicts(self, given: AbstractSet[str]) -> Iterator[Conflict]:
        for index, item in enumerate(self.items):
            if 9 in item.sizes:
                yield ("items", index, "sizes", item.sizes.index(9)), "is 9", "take 8"


def item_problems(text: str) -> list[str]:
    """Return the problems of items, each as ``place: problem``."""
    with pytest.raises(SettingsError) as caught:
        load_text(Items, text, {})
    return [f"{one.setting}: {one.problem}" for one in caught.value.problems]


def test_a_conflict_has_its_place_in_the_file_beside_invalid_items() -> None:
    text = """
        items = [
            1,
            { id = 1, sizes = [0, 7, "x", 9, 7] },
            "x",
            { sizes = [99, 99, 9, 7], type = "b", pairs = { a = 7, b = 0, "c d" = 7 } },
        ]
        """
    assert item_problems(text) == [
        "items[0]: is not a setting but a table of settings",
        'items[1].sizes[0]: "0" is not a whole number from 1 to 10',
        'items[1].sizes[2]: "x" is not a whole number from 1 to 10',
        "items[2]: is not a setting but a table of settings",
        'items[3].sizes[0]: "99" is not a whole number from 1 to 10',
        'items[3].sizes[1]: "99" is not a whole number from 1 to 10',
        'items[3].pairs.b: "0" is not a whole number from 1 to 10',
        "items[1].sizes[3]: is 9",
        "items[3].sizes[2]: is 9",
        "items[1].sizes[1]: is 7",
        "items[1].sizes[4]: is 7",
        "items[3]: is set without id",
        "items[3].sizes[3]: is 7",
        "items[3].pairs.a: is 7",
        'items[3].pairs."c d": is 7',
        "items[3].type: is b",
    ]


def test_an_item_that_lacks_a_key_hides_nothing_of_the_items_after_it() -> None:
    class Strict(ConfigModel):
        sizes: tuple[Annotated[int, PlainValidator(parsers.count(1, 10))], ...] = ()
        id: int

        def find_conflicts(self, given: AbstractSet[str]) -> Iterator[Conflict]:
            yield from ((("sizes", at), "is 7", "x") for at, size in enumerate(self.sizes) if size == 7)

    class Stricts(ConfigModel):
        items: tuple[Strict, ...] = ()

    with pytest.raises(SettingsError) as caught:
        load_text(Stricts, "items = [{ sizes = [0, 7] }, { id = 1, sizes = [7, 0, 7] }]", {})
    assert [f"{one.setting}: {one.problem}" for one in caught.value.problems] == [
        'items[0].sizes[0]: "0" is not a whole number from 1 to 10',
        'items[1].sizes[1]: "0" is not a whole number from 1 to 10',
        "items[0].sizes: is set without items[0].id",
        "items[1].sizes[0]: is 7",
        "items[1].sizes[2]: is 7",
    ]


def test_a_table_in_place_of_a_list_of_tables_is_no_list() -> None:
    assert item_problems("[items]\nid = 1\n") == ["items: is not a valid tuple"]


def test_the_name_of_an_alias_is_suggested() -> None:
    with pytest.raises(SettingsError, match=r"items\[0\].typ: is not a setting; did you mean items.type\?"):
        load_text(Items, "items = [{ id = 1, typ = 3 }]", {})
