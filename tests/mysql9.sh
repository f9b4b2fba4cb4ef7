#!/usr/bin/env bash
# Unpacks MySQL 9, which Debian has in its unstable suite only, with all the libraries it needs, into a root directory of its own.
# Nothing is installed on this machine and no service is started; the tests run the server in a chroot.
#
#   tests/mysql9.sh DIR
#
# Takes the mirror from which this machine's apt gets Debian. Says why and ends with 1 where that does not give it.
set -euo pipefail

root=${1:?"tests/mysql9.sh: name the directory to unpack into"}
[ ! -x "$root/usr/sbin/mysqld" ] || exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# apt keeps an archive's address beside each list of packages that it has fetched from there.
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m 1 -E '/debian/?$') || {
    echo "tests/mysql9.sh: apt of this machine knows no mirror of Debian" >&2
    exit 1
}
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] $mirror sid main" >"$work/sources.list"
# An empty status file: as if nothing were installed, so that every library comes along.
: >"$work/status"
# A mirror may be a snapshot or lag by weeks, after which apt would not take its signed lists; for a server that only tests talk to
# they are good enough.
unstable() {
    apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$work/lists" \
        -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" -o APT::Install-Recommends=false \
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false "$@"
}
unstable update
unstable install -y --download-only mysql-server-core >/dev/null

# Beside the target and renamed at the end, so that what is there is whole. Debian's / has links to the same folders of /usr.
part=$root.part
rm -rf "$part"
mkdir -p "$part"/{tmp,proc,dev,run}
for folder in bin sbin lib lib64; do
    mkdir -p "$part/usr/$folder"
    ln -s "usr/$folder" "$part/$folder"
done
for package in "$work"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$part"
done
rm -rf "$root"
mv "$part" "$root"
