#!/usr/bin/env bash
# Brings one change of a key under nginx/ into a running nginx, or refuses it and leaves everything as it was.
#
# `konsul kv watch nginx/ --initial --exec ./reload.sh` runs this for each change, one after the other, with the event as
# JSON on stdin and KONSUL_KEY, KONSUL_REVISION and KONSUL_EVENT (put or delete) in the environment.
set -euo pipefail

prefix=${NGINX_PREFIX:?where run.sh keeps its nginx}
name=${KONSUL_KEY#nginx/}
change="$KONSUL_EVENT of $KONSUL_KEY at revision $KONSUL_REVISION"
PATH=$PATH:/usr/sbin

# A key becomes a file's name, so it may only be a name.
if [[ ! $name =~ ^[A-Za-z0-9_-][A-Za-z0-9._-]*\.conf$ ]]; then
  echo "reload.sh: ignored the $change: not the name of a .conf file" >&2
  exit 0
fi

# The whole configuration as it would be, beside the live one and on the same file system.
candidate=$prefix/candidate
rm -rf "$candidate"
mkdir -p "$candidate/tmp"
cp -r "$prefix/live/nginx.conf" "$prefix/live/sites" "$candidate/"
case $KONSUL_EVENT in
  put) jq --join-output '.entry.value // ""' | base64 --decode >"$candidate/sites/$name" ;;
  delete) rm -f "$candidate/sites/$name" ;;
esac

if ! nginx -t -q -p "$candidate/" -c nginx.conf; then
  echo "reload.sh: refused the $change; nginx goes on as before" >&2
  exit 1
fi

# A rename is atomic: whoever reads the live file, reads the old one or the new one.
case $KONSUL_EVENT in
  put) mv -f "$candidate/sites/$name" "$prefix/live/sites/$name" ;;
  delete) rm -f "$prefix/live/sites/$name" ;;
esac
# What `nginx -s reload` does, without another start of nginx.
kill -HUP "$(<"$prefix/live/nginx.pid")"
echo "reload.sh: applied the $change" >&2
