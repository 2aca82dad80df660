# What every script here stands on: strict mode, the repository as working directory, how to speak and fail,
# and what FUSE needs. Sourced, never run.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$(pwd -P)
VENV=$ROOT/.venv
readonly ROOT VENV

[ -t 0 ] || exec </dev/null # CI may give no stdin, or one that never ends

# Exit codes beyond 1 (a step failed) and 2 (wrong usage):
readonly EXIT_SYSTEM=3  # the system lacks something and we could not install it
readonly EXIT_NO_FUSE=4 # installed, but this machine or container does not offer FUSE

say() { printf '==> %s\n' "$*" >&2; }

die() { # CODE MESSAGE...: each message on a line
    local code=$1
    shift
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
    exit "$code"
}

need_venv() { # for scripts that use the development tools but do not install them
    [ -x "$VENV/bin/ruff" ] || die 1 "the development tools are not installed" "run: scripts/setup --dev"
}

need_fuse() {
    command -v fusermount3 >/dev/null ||
        die "$EXIT_SYSTEM" "fusermount3 is missing" "install it, on Debian and Ubuntu: apt-get install fuse3"
    [ -c /dev/fuse ] || die "$EXIT_NO_FUSE" "there is no /dev/fuse" \
        "in a container: start it with --device /dev/fuse --cap-add SYS_ADMIN" \
        "                (and, where AppArmor is on, --security-opt apparmor=unconfined)" \
        "on a machine:   modprobe fuse"
    (: <>/dev/fuse) 2>/dev/null || die "$EXIT_NO_FUSE" "/dev/fuse exists but $(id -un) may not open it" \
        "in a container: start it with --device /dev/fuse --cap-add SYS_ADMIN" \
        "on a machine:   ls -l /dev/fuse should say crw-rw-rw-"
}
