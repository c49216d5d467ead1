"""Sample configuration files of any oslo.config project: written, and checked.

What oslo-incubator's generate_sample.sh and check_uptodate.sh did. The agent uses nothing of it, and it needs
nothing but the standard library: what needs oslo.config is ``sampler``, under the project's own interpreter.
"""
