#!/bin/sh
# As the image of registry:2 takes it: a configuration file, a command of the program, or any other command.
set -e
case "${1-}" in
  '' | *.yml | *.yaml) set -- registry-secure serve "$@" ;;
  serve | -*) set -- registry-secure "$@" ;;
  up)
    # It reads no configuration file, so it has to be told where the volume is.
    export REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY="${REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY:-/var/lib/registry}"
    set -- registry-secure "$@"
    ;;
  *) command -v "$1" >/dev/null || set -- registry-secure "$@" ;;
esac
exec "$@"
