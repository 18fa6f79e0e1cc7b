#!/bin/bash
# Installs what `npm run test:stores`, `test:e2e`, `test:crash` and `bench` need on Debian 12 or a like system with apt, as
# root. Quick when all is there.
# Starts no service, and never installs crun: podman would prefer it, and it refuses a host with hybrid cgroups.
set -eu

# Each command that a test runs, and the package that brings it.
needed='
docker docker.io
dockerd docker.io
containerd containerd
ctr containerd
runc runc
podman podman
skopeo skopeo
buildah buildah
docker-registry docker-registry
htpasswd apache2-utils
sshd openssh-server
ssh openssh-client
ssh-keygen openssh-client
curl curl
openssl openssl
slapd slapd
ldapadd ldap-utils
nginx nginx-light
apache2 apache2
busybox busybox-static
strace strace
ip iproute2
iptables iptables
nsenter util-linux
script bsdutils
unshare util-linux
setpriv util-linux
mount mount
mkfs.ext4 e2fsprogs
mkfs.xfs xfsprogs
chromium chromium
certutil libnss3-tools
keytool default-jre-headless
wrk wrk
'
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
fail() { echo "install.sh: $*" >&2; exit 1; }

missing() {
  while read -r command package; do
    [ -z "$command" ] || command -v "$command" >/dev/null || echo "$package"
  done <<<"$needed" | sort -u
}

packages=$(missing)
if [ -n "$packages" ]; then
  [ "$(id -u)" = 0 ] || fail "run as root: these packages are missing:" $packages
  command -v apt-get >/dev/null || fail "no apt-get here; install by hand:" $packages
  # Debian's own switch against starting services: 101 means "not allowed".
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive
  echo "install.sh: installing" $packages
  # runc is named so that apt takes it where podman accepts either of the two runtimes.
  apt-get -q update </dev/null
  apt-get -q -y install --no-install-recommends $packages runc </dev/null
fi

# An S3 service for tests, which is no package of Debian. It does not tell its own version, but the compiler does.
versitygw=1.8.0
built() { go version -m "$(command -v versitygw)" 2>/dev/null | grep -q "versity/versitygw[[:space:]]v$versitygw"; }
command -v go >/dev/null || fail "no go (1.24 or newer) here, to build versitygw $versitygw with"
if ! built; then
  [ "$(id -u)" = 0 ] || fail "run as root: versitygw $versitygw is missing"
  echo "install.sh: building versitygw $versitygw"
  GOBIN=/usr/local/bin go install "github.com/versity/versitygw/cmd/versitygw@v$versitygw"
  built || fail "the versitygw that is found first, $(command -v versitygw), is another one"
fi

left=$(missing)
[ -z "$left" ] || fail "still missing after the installation:" $left
if command -v crun >/dev/null; then fail "crun is installed and podman would use it; run: apt-get remove crun"; fi
if [ ! -d /etc/docker ]; then mkdir /etc/docker; fi
for command in docker dockerd podman skopeo docker-registry versitygw; do
  echo "install.sh: $command is $(command -v "$command")"
done
