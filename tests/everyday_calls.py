# ruff: noqa: E501
"""Calls that agents make all day with the tools that many have, all written for this project. None may need a person."""

from __future__ import annotations

from typing import Any

__all__ = ["EVERYDAY_CALLS"]

_ROOT = "/workspace"

_FILES: list[tuple[str, dict[str, Any]]] = [
    ("read_file", {"path": "src/app.py"}),
    ("read_text_file", {"path": f"{_ROOT}/README.md", "head": 40}),
    ("read_multiple_files", {"paths": ["package.json", "tsconfig.json", "src/index.ts"]}),
    (
        "write_file",
        {"path": "notes/todo.md", "content": "- buy milk\n- call Ada; then rest\n- run `rm -rf build` by hand\n"},
    ),
    (
        "write_file",
        {"path": "deploy.md", "content": "# Deploy\n\n    git push origin main\n    kubectl delete pod web-1\n"},
    ),
    ("write_file", {"path": "schema.sql", "content": "DROP TABLE IF EXISTS users;\nCREATE TABLE users (id int);"}),
    ("write_file", {"path": "app.py", "content": "import os\n\ndef main():\n    print(os.environ['HOME'])\n"}),
    (
        "edit_file",
        {"path": "src/x.ts", "edits": [{"oldText": "const a = '../lib/a'", "newText": "const a = '../lib/b'"}]},
    ),
    (
        "str_replace_based_edit",
        {"path": "a.py", "old_str": "os.remove(path)", "new_str": "path.unlink(missing_ok=True)"},
    ),
    ("create_directory", {"path": f"{_ROOT}/reports/2026"}),
    ("list_directory", {"path": "."}),
    ("list_directory", {"path": f"{_ROOT}/src"}),
    ("directory_tree", {"path": "src", "excludePatterns": ["node_modules", "**/*.pyc"]}),
    ("move_file", {"source": "a.txt", "destination": "archive/a.txt"}),
    ("search_files", {"path": ".", "pattern": "**/*.test.ts"}),
    ("get_file_info", {"path": "data/sales.csv"}),
    ("glob", {"pattern": "src/**/*.py"}),
    ("grep", {"pattern": "def (test_|main)", "path": "tests", "glob": "*.py"}),
    ("grep_search", {"query": "rm -rf", "includePattern": "*.sh"}),
    ("apply_patch", {"patch": "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-import os\n+import sys\n"}),
    ("read_file", {"target_file": "app/[id]/page.tsx", "start_line": 1, "end_line": 80}),
    ("copy_file", {"source_path": "a/b.txt", "destination_path": "c/d.txt"}),
    ("file_search", {"query": "settings"}),
    ("open_file", {"path": "notes (copy).md", "line": 3}),
    ("read_csv", {"file": "data/2026-01.csv", "delimiter": ";", "sheet": "Q1/Q2"}),
]

_CODE_HOSTS: list[tuple[str, dict[str, Any]]] = [
    (
        "create_issue",
        {
            "owner": "ada",
            "repo": "engine",
            "title": "Sort fails",
            "body": "Run `sort -k2 x | uniq`. See /etc/hosts.",
            "labels": ["bug", "good first issue"],
        },
    ),
    (
        "create_pull_request",
        {
            "owner": "ada",
            "repo": "engine",
            "title": "Fix: handle ../ in links",
            "head": "fix/links",
            "base": "main",
            "body": "Closes #12; see https://github.com/ada/engine/issues/12",
        },
    ),
    ("get_file_contents", {"owner": "ada", "repo": "engine", "path": "src/main.rs", "ref": "refs/heads/main"}),
    (
        "create_or_update_file",
        {
            "owner": "ada",
            "repo": "x",
            "path": "docs/a.md",
            "content": "# Hi\n",
            "message": "docs: say hi",
            "branch": "main",
        },
    ),
    (
        "push_files",
        {
            "owner": "ada",
            "repo": "x",
            "branch": "dev",
            "files": [{"path": "a.sh", "content": "echo hi\n"}],
            "message": "add a.sh",
        },
    ),
    ("search_code", {"q": "extension:py subprocess.run repo:ada/engine"}),
    ("search_repositories", {"query": "language:rust stars:>1000 parser"}),
    ("search_issues", {"q": "is:open is:issue label:bug author:ada"}),
    ("list_commits", {"owner": "ada", "repo": "x", "sha": "main", "page": 2}),
    ("get_pull_request", {"owner": "ada", "repo": "x", "pullNumber": 7}),
    ("add_issue_comment", {"owner": "ada", "repo": "x", "issue_number": 3, "body": "Try `npm ci && npm test`."}),
    ("create_branch", {"owner": "ada", "repo": "x", "branch": "feature/login-form", "from_branch": "main"}),
    ("merge_pull_request", {"owner": "ada", "repo": "x", "pull_number": 7, "merge_method": "squash"}),
    ("fork_repository", {"owner": "ada", "repo": "x"}),
    ("git_commit", {"repo_path": _ROOT, "message": "fix: kill the process after 5 s"}),
    ("git_diff", {"repo_path": ".", "target": "origin/main"}),
    ("git_log", {"repo_path": ".", "max_count": 10}),
    ("git_checkout", {"repo_path": ".", "branch_name": "feature/x"}),
    ("git_add", {"repo_path": ".", "files": ["src/a.py", "tests/test_a.py"]}),
    ("get_workflow_run", {"owner": "ada", "repo": "x", "run_id": 123456789}),
]

_DATABASES: list[tuple[str, dict[str, Any]]] = [
    ("sql_db_query", {"query": "SELECT name, total FROM customers ORDER BY total DESC LIMIT 5"}),
    ("sql_db_schema", {"table_names": "customers, orders"}),
    ("sql_db_list_tables", {"tool_input": ""}),
    (
        "sql_db_query_checker",
        {
            "query": "SELECT c.name, SUM(o.amount) FROM customers c JOIN orders o ON o.customer_id = c.id GROUP BY c.name"
        },
    ),
    (
        "query",
        {
            "sql": "SELECT date_trunc('week', created_at) AS w, count(*) FROM events WHERE created_at > now() - interval '30 days' GROUP BY 1"
        },
    ),
    ("read_query", {"query": "SELECT json_extract(data, '$.name') FROM docs WHERE id = 3"}),
    ("write_query", {"query": "UPDATE tasks SET done = 1 WHERE id = 12"}),
    ("write_query", {"query": "INSERT INTO tasks (title, due) VALUES ('Drop the table at Ada''s', '2026-01-05')"}),
    ("create_table", {"query": "CREATE TABLE IF NOT EXISTS tasks (id INTEGER PRIMARY KEY, title TEXT NOT NULL)"}),
    ("describe_table", {"table_name": "tasks"}),
    ("execute_sql", {"sql": "DELETE FROM sessions WHERE expires < now()"}),
    ("execute_sql", {"project_id": "p1", "query": "select * from pg_stat_activity where state = 'active'"}),
    ("run_sql", {"sql": "WITH t AS (SELECT * FROM a WHERE x > 3) SELECT avg(y), max(z) FROM t"}),
    ("list_tables", {"schemas": ["public"]}),
    ("postgres_query", {"sql": "EXPLAIN ANALYZE SELECT * FROM orders WHERE status = 'open'"}),
    ("bigquery", {"sql": "SELECT DATE(ts) AS d, COUNT(DISTINCT user_id) FROM logs GROUP BY d ORDER BY d"}),
    ("find", {"collection": "users", "filter": {"age": {"$gt": 30}}, "limit": 10}),
    ("redis_get", {"key": "session:ada"}),
]

_SHELLS: list[tuple[str, dict[str, Any]]] = [
    ("bash", {"command": "ls -la && cat README.md | head -20"}),
    ("bash", {"command": "python -m pytest -q tests/test_app.py"}),
    ("bash", {"command": "git status --short && git diff --stat"}),
    ("bash", {"command": "npm ci && npm run build"}),
    ("shell", {"commands": ["mkdir -p out", "cp -r src out/"]}),
    ("run_shell_command", {"command": "grep -rn 'TODO' src | wc -l", "description": "Count the notes"}),
    ("terminal", {"commands": "find . -name '*.py' -newer setup.py"}),
    ("run_in_terminal", {"command": "cargo test --release", "explanation": "Run the tests", "isBackground": False}),
    ("execute_command", {"command": "docker compose ps", "requires_approval": False}),
    ("run_terminal_cmd", {"command": "jq '.items[] | .name' data.json", "is_background": False}),
    ("start_process", {"command": "npm run dev", "timeout_ms": 10000}),
    ("read_process_output", {"pid": 4242, "timeout_ms": 500}),
    ("list_sessions", {}),
    ("exec", {"input": "make test", "workdir": _ROOT}),
    ("tmux_send_keys", {"session": "main", "keys": ["git log --oneline", "Enter"]}),
    ("process", {"action": "poll", "id": "job-3"}),
    ("process", {"action": "start", "command": "uvicorn app:app --reload"}),
    ("bash", {"restart": True}),
    ("shell_exec", {"id": "s1", "exec_dir": _ROOT, "command": "sed -n '1,40p' app.py"}),
    ("bash", {"command": "awk -F, '{s += $3} END {print s}' sales.csv"}),
    ("bash", {"command": "tar -czf backup.tgz src docs"}),
    ("bash", {"command": "curl -s https://api.example.org/v1/status | jq .ok"}),
    ("bash", {"command": 'for f in *.md; do echo "$f"; done'}),
    ("bash", {"command": "sort -t, -k2 -n data.csv | uniq -c | sort -rn | head"}),
    ("bash", {"command": "gcc -O2 -Wall -o app main.c -lm && ./app"}),
]

_BROWSERS: list[tuple[str, dict[str, Any]]] = [
    ("browser_navigate", {"url": "https://example.org/products?page=2"}),
    ("browser_click", {"element": "Sort by price", "ref": "e12"}),
    ("browser_type", {"element": "Search box", "ref": "e3", "text": "red shoes size 42", "submit": True}),
    ("browser_fill_form", {"fields": [{"name": "City", "type": "textbox", "ref": "e5", "value": "Berlin"}]}),
    ("browser_snapshot", {}),
    ("browser_evaluate", {"function": "() => document.title"}),
    ("browser_evaluate", {"function": "() => [...document.querySelectorAll('a')].map(a => a.href)"}),
    ("browser_press_key", {"key": "Enter"}),
    ("browser_wait_for", {"text": "Open now", "time": 3}),
    ("browser_take_screenshot", {"filename": "page.png", "fullPage": True}),
    ("playwright_click", {"selector": "div.card > a[href='/about']"}),
    ("playwright_fill", {"selector": "#email", "value": "ada@example.org"}),
    ("puppeteer_navigate", {"url": "http://localhost:3000/login"}),
    ("fetch", {"url": "https://docs.python.org/3/library/os.html#os.remove", "max_length": 5000}),
    ("web_search", {"query": "how to undo git reset --hard"}),
    ("web_search", {"query": "kill -9 vs kill -15 difference"}),
    ("tavily_search", {"query": "weather in Paris this weekend", "topic": "general", "max_results": 5}),
    ("brave_web_search", {"query": "find / -name *.log explained", "count": 10}),
    ("scrape", {"url": "https://en.wikipedia.org/wiki/Ada_Lovelace", "formats": ["markdown"]}),
    ("extract", {"urls": ["https://example.org/a", "https://example.org/b"], "prompt": "Who wrote it?"}),
    ("click", {"x": 220, "y": 340}),
    ("scroll", {"direction": "down", "amount": 3}),
    ("type", {"text": "Dear Ada, the build is done."}),
    (
        "http_request",
        {"method": "GET", "url": "https://api.example.org/v2/items/42", "headers": {"Accept": "application/json"}},
    ),
    (
        "requests_get",
        {"url": "https://api.open-meteo.com/v1/forecast?latitude=52.5&longitude=13.4&hourly=temperature_2m"},
    ),
    ("api_call", {"endpoint": "/v1/users/42", "method": "GET"}),
]

_OFFICE: list[tuple[str, dict[str, Any]]] = [
    (
        "send_email",
        {
            "to": ["ada@example.org"],
            "subject": "Cut the costs",
            "body": "Hi Ada,\n\nplease find the report at /reports/q3.pdf; kill the old one.\n\nBest",
        },
    ),
    (
        "create_draft",
        {"to": "bob@example.org", "subject": "Re: format of the table", "message": "Make it wider -- thanks!"},
    ),
    ("search_emails", {"query": "from:ada has:attachment newer_than:7d"}),
    ("get_thread", {"thread_id": "18c2f0a1b2c3d4e5"}),
    (
        "create_event",
        {
            "title": "Mount the shelf",
            "start": "2026-01-12T10:00:00+01:00",
            "end": "2026-01-12T11:00:00+01:00",
            "location": "Room 3/4",
            "attendees": ["ada@example.org"],
        },
    ),
    (
        "create_event",
        {
            "summary": "Watch the match; then dinner",
            "start_time": "2026-02-01 19:00",
            "location": "Cat Café, 12 Main St.",
        },
    ),
    ("list_events", {"timeMin": "2026-01-01T00:00:00Z", "timeMax": "2026-02-01T00:00:00Z", "calendarId": "primary"}),
    ("update_event", {"event_id": "abc123", "description": "Join at https://meet.example.org/abc-defg-hij"}),
    ("send_message", {"channel": "#general", "text": "Deploy done: `git push origin main` went well. Who is on call?"}),
    ("slack_post_message", {"channel_id": "C012AB3CD", "text": "top 3 issues: a/b, c/d, e/f"}),
    (
        "create_page",
        {
            "parent": {"page_id": "1a2b"},
            "properties": {"title": "Sleep study"},
            "children": [{"paragraph": {"text": "Time to sleep: 8 h"}}],
        },
    ),
    ("append_block_children", {"block_id": "9f", "children": ["- mail Bob", "- open the account", "- kill time"]}),
    ("create_task", {"content": "File the taxes", "due_string": "every Monday at 9", "priority": 3}),
    ("add_todo", {"task": "sort the photos by date", "list": "Home"}),
    (
        "update_spreadsheet",
        {"range": "Sheet1!A1:C3", "values": [["Name", "Cost"], ["cat food", 12.5], ["host fee", "=B2*2"]]},
    ),
    ("append_row", {"sheet": "Costs", "row": {"item": "date palm", "cost": 20, "note": "ask for less"}}),
    ("translate", {"text": "Wo ist der Bahnhof?", "target": "en", "source": "de"}),
    ("summarize", {"text": "The test was run on 3/4 of all cases; see section 2/1.", "length": "short"}),
    ("get_weather", {"location": "Paris, FR", "unit": "celsius"}),
    ("find_places", {"query": "cafés near Alexanderplatz", "radius": 500}),
    ("book_table", {"restaurant": "The Cut", "time": "19:30", "people": 4, "notes": "less salt, please; no nuts"}),
    ("search_flights", {"origin": "BER", "destination": "LIS", "date": "2026-03-01"}),
    ("calculator", {"expression": "6/2*(1+2)"}),
    ("calculator", {"expr": "2**10 - 24"}),
    ("convert_units", {"value": 12, "from": "km/h", "to": "m/s"}),
    ("set_reminder", {"when": "at noon", "what": "watch the oven"}),
    ("remember", {"key": "favourite/colour", "value": "red; sometimes blue"}),
    (
        "create_memory",
        {"entities": [{"name": "Ada", "entityType": "person", "observations": ["runs a shop", "works at home"]}]},
    ),
    ("think", {"thought": "First ls the folder, then rm the cache; and run the tests."}),
    (
        "sequentialthinking",
        {"thought": "The command `rm -rf dist` is safe here.", "thoughtNumber": 1, "nextThoughtNeeded": False},
    ),
    ("ask_user", {"question": "Shall I run `git reset --hard`?"}),
    ("handoff", {"agent": "researcher", "task": "Find out who wrote the test and open an issue"}),
    ("final_answer", {"answer": "Use `sudo apt install jq`, or see /usr/share/doc/jq."}),
    (
        "todo_write",
        {
            "todos": [
                {"content": "Run tests; fix lint", "status": "pending"},
                {"content": "make build", "status": "done"},
            ]
        },
    ),
]

_INTERPRETERS: list[tuple[str, dict[str, Any]]] = [
    ("python_repl", {"input": "print(sum(x * x for x in range(10)))"}),
    ("python_repl_ast", {"query": "df.groupby('city')['price'].mean().sort_values()"}),
    ("code_interpreter", {"code": "import pandas as pd\ndf = pd.read_csv('data.csv')\nprint(df.describe())"}),
    ("execute_code", {"language": "python", "code": "import math\nid = 5\nsize = -1\nprint(math.sqrt(16) - size)"}),
    ("execute_python", {"code": "from datetime import date\nprint(date.today())"}),
    ("run_code", {"code": "const xs = [1, 2, 3];\nconsole.log(xs.map(x => x * 2));", "language": "javascript"}),
    ("ipython", {"code": "import matplotlib.pyplot as plt\nplt.plot([1, 4, 9])\nplt.savefig('plot.png')"}),
    ("jupyter_execute", {"cell": "%matplotlib inline\nimport numpy as np\nnp.linspace(0, 1, 5)"}),
    ("python", {"code": "with open('out.txt', 'w') as f:\n    f.write('a/b')"}),
    ("run_python", {"code": "import re\nprint(re.sub(r'/+', '/', 'a//b'))"}),
    ("execute_code", {"code": "for i in range(3):\n    print(i)\n"}),
    ("run_js", {"code": "return items.filter(i => i.price < 10).length"}),
    ("wolfram", {"query": "integrate x^2 sin(x) dx"}),
    ("sandbox_run", {"code": "def head(xs):\n    return xs[:5]\nprint(head([1,2,3]))"}),
    ("execute", {"code": "x = 3\ny = x / 2\ntest = y > 1\nprint(test)"}),
]

EVERYDAY_CALLS = [*_FILES, *_CODE_HOSTS, *_DATABASES, *_SHELLS, *_BROWSERS, *_OFFICE, *_INTERPRETERS]
"""Tools and arguments, as their servers and toolkits name them."""
