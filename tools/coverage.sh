#!/bin/bash
# coverage.sh BIN [PYTEST-ARGUMENT…]: the suite under coverage, that of the processes it starts included, and
# the migration worker's own tests in both worlds of SQLAlchemy.
# The report is printed in any case; the exit code is that of the first part that failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
bin=$1
shift
status=0

note() {
    local last=$?
    [ "$status" -ne 0 ] || status=$last
}

"$bin/coverage" erase
"$bin/coverage" run -m pytest "$@" || note
"$bin/tox" run --quiet -e worker-migrate,worker-newest || note
"$bin/coverage" combine --quiet || note
"$bin/coverage" report || note
exit "$status"
