"""SQL is judged by what is known to be harmless: everything else is asked about, however it is written."""

from __future__ import annotations

import random

import pytest

from benchmarks.tool_calls import counted
from stars_guard.core.messages import ToolCall
from stars_guard.parsing.sql_statements import UnreadableSql, read_sql

_ALL = """1=1|id=id|id = t.id|true or id=3|id > -1|id >= 0|id != -1|id <> 0|not (id is null)|id is not null
coalesce(1,1)=1
length(name) >= 0|id*0=0|id % 1 = 0|abs(sign(id)) <= 1|a=1 or a<>1|a<5 or a>=5|a is null or a is not null|name like '%'
name like '_%'|'x' like '%'|id in (select id from t)|exists(select 1 from t)|id = any(select id from t)|name > ''
id >= (select min(id) from t)|id = (select t.id)|id = (select x.id from t x where x.id = t.id)|random() < 1|b|not b
created < '9999-01-01'|created > '1900-01-01'|created < now() + interval '100 years'
created > now() - interval '1000 years'
id between 0 and 999999999|id < 999999999|rowid > 0|name ~ '.*'|name glob '*'|name regexp '.'|(a, b) = (a, b)|1|'a'='a'
id in (select id from u)|id = id + 0|case when true then true end|nullif(1, 2) = 1|true is true|id::text = id::text"""

_SOME = """id=3|id in (1, 2)|a = 1 and 1 = 1|expires < now()|id = ?|id = $1|id = :id|name like 'a%'
lower(email) = 'x@y.z'
created_at < now() - interval '90 days'|deleted_at is null|status = 'done' or status = 'failed'|price > 100|age < 18
id between 5 and 9|user_id = 5 and product_id in (select id from products where name = 'x')|day = '2026-01-01'
id > 5 and id < 9|created between '2026-01-01' and '2026-02-01'|user_id = (select id from users where email = 'x')"""


def is_asked_about(text: str) -> bool:
    try:
        return any(one.all_rows for one in read_sql(text))
    except UnreadableSql:
        return True


@pytest.mark.parametrize("change", ["DELETE FROM t", "UPDATE t SET a = 1"])
def test_a_condition_counts_only_where_it_is_known_to_pick_rows_out(change: str) -> None:
    for condition in _ALL.replace("\n", "|").split("|"):
        for form in (
            condition,
            f"({condition})",
            f"{condition} and 1=1",
            f"{condition} or false",
            f"{condition} /* x */",
        ):
            assert is_asked_about(f"{change} WHERE {form}"), form
    for condition in _SOME.replace("\n", "|").split("|"):
        assert not any(one.all_rows for one in read_sql(f"{change} WHERE {condition}")), condition
    assert read_sql(f"{change} LIMIT 100000000")[0].all_rows


_HARM = """create function f() returns int as 'x'|create extension x|create user eve identified by 'x'|drop table t
truncate t
create rule r as on insert to t do nothing|create trigger x after insert on t execute function f()|set role postgres
set global general_log=1|set session authorization x|pragma writable_schema=1|call p()|grant all on t to eve
merge into t using s on t.id=s.id when matched then delete|copy t to '/tmp/x'|copy t from program 'id'|vacuum into '/x'
select load_file('/etc/passwd')|select pg_read_file('/x')|select lo_export(1, '/x')|attach database '/etc/x' as y
select * from t, lateral dblink('x', 'y') as z(a int)|select pg_catalog.pg_ls_dir('.')|select my_own_function(1)
select * from read_csv('/etc/passwd')|select * from '/etc/passwd'|select * from pg_shadow|select * from mysql.user
insert into mysql.user values (1)|insert overwrite table t select 1|create or replace table t as select 1
create table t(a int) engine=URL('http://x')|alter table t drop column a|alter user x superuser
prepare x from 'drop table t'
execute immediate 'x'|do $$ begin delete from t; end $$|install httpfs|load 'x'|kill 5|shutdown|lock tables t write
select 1 into outfile '/tmp/x'|select 1 into dumpfile '/tmp/x'|select pg_sleep(100)|select set_config('a', 'b', false)
delete from t where 1=1|update t set a=1|delete from t where id in (select id from t)
create server s foreign data wrapper x"""

_EVERYDAY = """select * from users where id=1|select count(*), max(a) from t|select now(), version()|show tables
describe t
with a as (select 1) select * from a|explain select * from t|explain analyze select * from t|pragma table_info(t)
select row_number() over (partition by a order by b) from t|insert into t (a) values (1)|update t set a=1 where id=3
delete from t where id=3|create table t(id int)|create index i on t(a)|create view v as select 1|begin|commit|rollback
set search_path to app|set statement_timeout = '5s'|select json_extract(d, '$.x') from t|select top 10 * from t|use shop
select pg_size_pretty(pg_total_relation_size('t'))|pragma foreign_keys = on|select * from information_schema.tables
merge into t using s on t.id=s.id when matched then update set a=s.a when not matched then insert (a) values (s.a)"""


def disguised(some: random.Random, text: str) -> str:
    """A statement as others would write it."""
    words = text.split(" ")
    spaces = [" ", "\n", "\t", " /* x */ ", "  "]
    joined = words[0] + "".join(some.choice(spaces) + word for word in words[1:])
    joined = joined if "'" in text or "$$" in text else "".join(some.choice((c.upper(), c.lower())) for c in joined)
    shapes = ["{}", "{};", "/* hi */ {}", "-- hi\n{}", "select 1; {}", "{}; select 1", "begin; {}; commit"]
    return some.choice(shapes).format(joined)


async def test_what_is_not_known_to_be_harmless_is_asked_about() -> None:
    some = random.Random(7)
    texts = [disguised(some, text) for text in _HARM.replace("\n", "|").split("|") for _ in range(6)]
    texts += [
        f"explain analyze {text}" for text in _HARM.replace("\n", "|").split("|") if text[:6] in ("delete", "update")
    ]
    texts += ["/*!50000 drop */ table t", "/*M!100100 drop table t*/", "select 5--1; drop table t"]
    texts += ["select 'a\\' , 'b; drop table t -- '", "select $$'$$; drop table t; --'"]
    found = await counted("agent-tools", [ToolCall(id="", name="db", arguments={"sql": text}) for text in texts])
    assert not found.allowed, [call.arguments["sql"] for call in found.allowed]


async def test_everyday_statements_run_unasked() -> None:
    texts = _EVERYDAY.replace("\n", "|").split("|")
    found = await counted("agent-tools", [ToolCall(id="", name="db", arguments={"sql": text}) for text in texts])
    assert found.share(found.allowed) == 1, [call.arguments["sql"] for call in (*found.asked, *found.rejected)]


async def test_a_statement_is_seen_in_an_argument_of_any_name() -> None:
    harm = ["drop table users", "delete from users", "truncate table users;", "select pg_read_file('x') from t"]
    calls = [ToolCall(id="", name="go", arguments={name: text}) for name in ("x", "input", "data") for text in harm]
    assert not (await counted("agent-tools", calls)).allowed
    prose = ["Select a gift from the list", "Delete the file", "drop the table off", "create a table of contents"]
    calls = [ToolCall(id="", name="go", arguments={"x": text}) for text in prose]
    assert not (found := await counted("agent-tools", calls)).asked, found.asked
