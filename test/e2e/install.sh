#!/bin/bash
# Installs what `npm run test:stores`, `test:e2e`, `test:crash` and `bench` need on Debian 12 or a like system with apt, as
# root. Quick when all is there. The services for SWIFT_TEST, CEPH_TEST and MINIO_TEST, which are heavy, where they are named:
# `test/e2e/install.sh swift ceph minio`.
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
minio=
for heavy; do
  case $heavy in
    swift) needed+='
swift-proxy-server swift-proxy
swift-account-server swift-account
swift-container-server swift-container
swift-object-server swift-object
memcached memcached
keystone-manage keystone
uwsgi_python3 uwsgi-plugin-python3
' ;;
    ceph) needed+='
ceph ceph-common
ceph-mon ceph-mon
ceph-osd ceph-osd
radosgw radosgw
' ;;
    minio) minio=1 ;;
    *) echo "install.sh: $heavy is none of swift, ceph, minio" >&2; exit 2 ;;
  esac
done
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

# Services for tests that are no packages of Debian. Not each tells its own version, but the compiler does.
command -v go >/dev/null || fail "no go (1.24 or newer) here, to build versitygw and fake-gcs-server with"
build() {
  local module=$1 version=$2 command=${1##*/}
  built() { go version -m "$(command -v "$command")" 2>/dev/null | grep -q "[[:space:]]mod[[:space:]].*[[:space:]]v$version[[:space:]]"; }
  if built; then return; fi
  [ "$(id -u)" = 0 ] || fail "run as root: $command $version is missing"
  echo "install.sh: building $command $version"
  GOBIN=/usr/local/bin go install "$module@v$version"
  built || fail "the $command that is found first, $(command -v "$command"), is another one"
}
build github.com/versity/versitygw/cmd/versitygw 1.8.0
build github.com/fsouza/fake-gcs-server 1.56.1
[ -z "$minio" ] || build github.com/minio/minio 0.0.0-20260212201848-7aac2a2c5b7c

# Azure Blob Storage for tests, a program of npm.
azurite=3.35.0
emulates() { azurite-blob --version 2>/dev/null | grep -qx "$azurite"; }
if ! emulates; then
  [ "$(id -u)" = 0 ] || fail "run as root: azurite $azurite is missing"
  echo "install.sh: installing azurite $azurite"
  npm install --prefix /usr/local/lib/azurite --no-audit --no-fund --loglevel=error "azurite@$azurite" </dev/null
  ln -sf ../lib/azurite/node_modules/.bin/azurite-blob /usr/local/bin/azurite-blob
  emulates || fail "the azurite-blob that is found first, $(command -v azurite-blob), is another one"
fi

left=$(missing)
[ -z "$left" ] || fail "still missing after the installation:" $left
if command -v crun >/dev/null; then fail "crun is installed and podman would use it; run: apt-get remove crun"; fi
if [ ! -d /etc/docker ]; then mkdir /etc/docker; fi
for command in docker dockerd podman skopeo docker-registry versitygw azurite-blob fake-gcs-server; do
  echo "install.sh: $command is $(command -v "$command")"
done
