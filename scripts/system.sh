#!/usr/bin/env bash
# PostgreSQL and Chromium for the tests. Where they can't be installed from here, it says how to get them, and the tests
# that need them are skipped. In CI (CI=true) nothing may be missing.
set -euo pipefail

has_postgresql() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; }
has_chromium() {
  command -v chromium chromium-browser google-chrome >/dev/null || [ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ]
}

missing=()
has_postgresql || missing+=(postgresql)
has_chromium || missing+=(chromium)
[ ${#missing[@]} -eq 0 ] && exit 0

if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
  exit 0
fi

cat >&2 <<END
These programs are missing, and can't be installed from here: ${missing[*]}
The tests of the audit log in PostgreSQL need the first, those of the audit page in a browser the second. Get them with
  Debian, Ubuntu:  sudo apt-get install ${missing[*]}
  macOS:           brew install ${missing[*]}
Until then these tests are skipped.
END
[ "${CI:-}" != true ]
