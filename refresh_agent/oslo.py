"""oslo.config, imported without what it never uses here."""

from refresh_agent import imports

# It has option types (URI, IP address) and drivers that need the first three: executing them is half of what
# importing it costs (48 of 90 ms), and --once is started by people and cron. It can do without oslo.log.
with imports.lightly({"netaddr", "rfc3986", "stevedore"}, absent={"oslo_log"}):
    from oslo_config import cfg, iniparser

__all__ = ["cfg", "iniparser"]
