# Sourced by the scripts beside it: prepares .venv and Debian's packages, once.

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin  # where administrators' programs are
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.venv

say() { printf '%s\n' "$*" >&2; }

# Debian's packages, where a command that they bring is missing: need COMMAND PACKAGE...
need() {
    command -v "$1" >/dev/null 2>&1 && return 0
    shift
    missing="${missing:-} $*"
}

# What containers and their images need.
need_for_containers() {
    command -v crun >/dev/null 2>&1 || need runc runc
    need mkfs.btrfs btrfs-progs
    need tini-static tini
    need nft nftables
    need busybox busybox-static
    need skopeo skopeo
    need mmdebstrap mmdebstrap
}

install_needed() {
    [ -n "${missing:-}" ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing$missing"
        # shellcheck disable=SC2086  # one word a package
        { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
            install --no-install-recommends $missing; } >&2
    else
        say "missing:$missing  (as root: apt-get install$missing)"
        return 1
    fi
}

find_python() {
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            return 0
        fi
    done
    say "Python 3.11 or newer is needed, and was not found."
    exit 1
}

has_postgres() {
    [ -n "$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] ||
        command -v initdb >/dev/null 2>&1
}

# Whether .venv can be gone on with: made in this place, of a Python that will do.
venv_fits() {
    [ "$("$venv/bin/python" -c 'import pip, sys
print(sys.version_info >= (3, 11), sys.prefix)' 2>/dev/null)" = "True $venv" ]
}

# prepare_venv WHAT: .venv with hoody from this checkout and what it needs, for the
# server, or for all, the tests too. Without a Postgres on the machine, one comes with it.
# Done again only when the requirements or the checkout's place change.
prepare_venv() {
    find_python
    wanted=$({ cat "$root/setup.cfg"; echo "$root"; } | sha256sum | cut -c1-64)
    have=$(cat "$venv/prepared" 2>/dev/null || true)
    extras=
    has_postgres || extras=embedded
    case "$have" in "$wanted all $extras" | "$wanted $1 $extras") return 0 ;; esac
    case "$have" in *" all "*) set -- all ;; esac  # what was there before stays
    say "preparing $venv"
    if ! venv_fits; then
        if ! "$python" -c 'import ensurepip' 2>/dev/null; then
            missing="${missing:-} python3-venv"
            install_needed || exit 1
        fi
        "$python" -m venv --clear "$venv"
    fi
    names=$extras
    [ "$1" = all ] && names="test${extras:+,$extras}"
    # The default editable install hides the twistd plugin; this way of it does not.
    "$venv/bin/pip" -q --disable-pip-version-check install --config-settings \
        editable_mode=compat -e "$root${names:+[$names]}" >&2
    [ "$1" = all ] && "$venv/bin/pip" -q --disable-pip-version-check install 'tox >= 4' >&2
    echo "$wanted $1 $extras" >"$venv/prepared"
}

# Two starts at once must not prepare the same folder.
prepare() {
    if command -v flock >/dev/null 2>&1; then
        exec 9>"$root/.prepare.lock"
        flock 9
        prepare_venv "$1"
        exec 9>&-
    else
        prepare_venv "$1"
    fi
}
