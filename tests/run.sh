#!/usr/bin/env bash
# Installs what the tests need on a Debian machine with Rust, builds the workspace and runs every test.
#
#   tests/run.sh [arguments of cargo test]
#
# Whatever is installed is not started, and a database that runs here is not touched: the tests start servers of their
# own on private sockets and ports. LAMPAD_NO_INSTALL=1 installs nothing. Run by an ordinary user it installs with sudo and
# skips the tests that need root's rights, and says which these are.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '== %s\n' "$*"; }

tests/install.sh tests

# Python's gRPC for the example of a custom pusher, in an environment under target/.
venv=target/python
requirements=tests/python/requirements.txt
if ! cmp -s $requirements $venv/installed.txt; then
    say "python environment in $venv"
    python3 -m venv $venv
    $venv/bin/pip install --quiet --disable-pip-version-check -r $requirements
    cp $requirements $venv/installed.txt
fi

# MySQL 9 runs in a root directory of its own, which takes root's rights. Debian's unstable suite may be out of reach, or between two
# versions; then that is said, and what needs this server is skipped.
if [ "$(id -u)" = 0 ]; then
    mysql9=${LAMPAD_MYSQL9_ROOT:-$PWD/target/mysql9}
    if [ ! -x "$mysql9/usr/sbin/mysqld" ] && [ "${LAMPAD_NO_INSTALL:-}" != 1 ]; then
        say "MySQL 9 in $mysql9"
        tests/mysql9.sh "$mysql9" || say "NO MYSQL 9: tests that need it are skipped"
    fi
    [ ! -x "$mysql9/usr/sbin/mysqld" ] || export LAMPAD_MYSQL9_ROOT=$mysql9
fi

say "building"
# Programs and tests in one build: apart they would want their dependencies with different features, and compile them twice.
cargo build --workspace --bins --tests --examples
say "testing"
# Where a test finds something missing it fails now instead of being skipped.
export LAMPAD_TESTS_COMPLETE=1
if [ "$(id -u)" != 0 ]; then
    export LAMPAD_TESTS_WITHOUT_ROOT=1
    say "NOT ROOT: tests that mount, fill a disk or change users are skipped; run this as root for these:"
    # A test's name stands above what it needs.
    awk '/(^| )fn /{split($0, part, /fn |\(/); name = part[2]} name != "possible" && /needs::root\(\)|!possible\(\)/{print "   " FILENAME ": " name}' tests/tests/*.rs
fi
exec cargo test --workspace "$@"
