"""From directories of hooks to their results: os-refresh-config's phases, dib-run-parts' rules."""
