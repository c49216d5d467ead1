#!/usr/bin/env bash
# Write the sample configuration of an oslo.config project; --help tells more.
# What it runs is refresh-agent's: of the checkout that this file lies in, or else installed for PYTHON. That is
# then also the interpreter that imports the project, unless --python names another one.
set -euo pipefail
trap 'exit 130' INT
python=${PYTHON:-python3}
[ -z "${PYTHON:-}" ] || unset VIRTUAL_ENV
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
if [ -e "$checkout/refresh_agent/tools/generate_sample.py" ]; then
    export PYTHONPATH="$checkout${PYTHONPATH:+:$PYTHONPATH}"
fi
if ! "$python" -P -c "import refresh_agent.tools" 2>/dev/null; then
    echo "${0##*/}: $python is not a Python 3.11 or later that has refresh-agent: set PYTHON to one" >&2
    exit 2
fi
CONFIG_SAMPLE_CALLED=$0 exec "$python" -P -m refresh_agent.tools.generate_sample "$@"
