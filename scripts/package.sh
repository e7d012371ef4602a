# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
#
# Files out of Debian packages, which are not installed; sourced by the scripts that need some. What goes wrong is
# said on stderr in one sentence.

package_note() { echo "$(basename "$(dirname "$0")")/$(basename "$0"): $*" >&2; }

# Root's apt drops to the user _apt for downloads, which may not be able to enter the directory.
package_options=()
package_as_root=()
if ((EUID == 0)); then
	package_options=(-o APT::Sandbox::User=root)
elif command -v sudo >/dev/null; then
	package_as_root=(sudo -n)
fi

# Lists may be missing, or name files that the mirror has replaced.
package_refresh() {
	package_note "refreshing the package lists"
	"${package_as_root[@]}" apt-get -qq update >&2
}

package_known_field() {
	apt-cache show --no-all-versions "$1" 2>/dev/null | sed -n "s/^$2: //p" | head -n 1
}

# PACKAGE FIELD: the field of the version that apt would install.
package_field() {
	local value

	value=$(package_known_field "$1" "$2")
	if [[ -z $value ]]; then
		package_refresh || true
		value=$(package_known_field "$1" "$2")
	fi
	if [[ -z $value ]]; then
		package_note "the package lists do not have $1: offline, or no Debian 12 for amd64?"
		return 1
	fi
	echo "$value"
}

# PACKAGE[=VERSION] FILE: write that file of the package, by its path with "./" in front, to standard output.
package_file() {
	local package=$1 file=$2 work status=0

	work=$(mktemp -d "$PWD/package.XXXXXX")
	package_note "downloading $package"
	if ! (cd "$work" && apt-get -qq "${package_options[@]}" download "$package" >&2); then
		package_refresh || true
		(cd "$work" && apt-get -qq "${package_options[@]}" download "$package" >&2) || status=1
	fi
	if ((status)); then
		package_note "cannot download $package: offline, or replaced by a newer one?"
	elif ! dpkg-deb --fsys-tarfile "$work"/*.deb | tar -x -O "$file"; then
		package_note "there is no $file in $package"
		status=1
	fi
	rm -rf "$work"
	return $status
}
