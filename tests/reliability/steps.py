"""What is drawn for a life of the model: its steps, and what happens in the middle of one."""

from typing import NamedTuple


class Step(NamedTuple):
    """What is done, with the seed of all its chance: so that it is the same without those before it."""

    name: str
    seed: int


WEIGHTS = {
    "turn": 14,
    "change": 20,
    "change_and_wait": 40,
    "go_back": 8,
    "spoil": 3,
    "a_moment_passes": 5,
    "the_next_timer_is_due": 60,
    "hours_pass": 1,
    "the_wall_clock_jumps": 2,
    "hup": 10,
    "hooks_will_fail": 12,
    "hooks_will_succeed": 10,
    "set_max_attempts": 4,
    "set_run_at_boot": 2,
    "something_will_happen": 40,
    "the_disk_will_fail": 5,
    "the_disk_is_well": 8,
    "it_is_killed_while_it_migrates": 3,
    "kill": 1,
    "start": 30,
    "reboot": 8,
    "term": 1,
    "another_takes_the_lock": 2,
    "the_lock_is_free": 14,
    "pause": 3,
    "resume": 18,
    "run_by_hand": 6,
    "a_run_by_hand_fails": 3,
    "a_run_by_hand_is_the_first_of_a_boot": 3,
    "once": 5,
    "once_force": 1,
    "settle": 6,
}
"""Steps, and how often each is taken beside the others."""

MEANWHILE = (
    *("change", "go_back", "spoil", "hup", "stop_it"),
    *("kill_it", "kill_it", "kill_it", "lose_power"),
    "the_wall_clock_jumps",
)
"""What can happen anywhere in the middle of the agent's work."""

DURING_HOOKS = (*MEANWHILE, "pause", "resume", "once", "run_by_hand", "hours_pass", "a_moment_passes")
