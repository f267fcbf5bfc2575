#!/usr/bin/env bash
# Runs a private nginx whose sites are the keys under nginx/ in Konsul, until it is interrupted.
#
# KONSUL_ADDR says where the server is. NGINX_PREFIX is nginx's folder, a temporary one unless set.
set -euo pipefail

cd "$(dirname "$0")"
PATH=$PATH:/usr/sbin
export NGINX_PREFIX=${NGINX_PREFIX:-$(mktemp -d -t konsul-nginx-XXXXXX)}

# Nothing is kept from an earlier run: Konsul has the sites, and sends them as the initial state.
rm -rf "$NGINX_PREFIX/live"
mkdir -p "$NGINX_PREFIX/live/sites" "$NGINX_PREFIX/live/tmp"
cp nginx.conf "$NGINX_PREFIX/live/"

children=()
end() {
  trap - EXIT INT TERM
  kill "${children[@]}" 2>/dev/null || true
  wait
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

nginx -p "$NGINX_PREFIX/live/" -c nginx.conf &
children+=($!)
for _ in {1..100}; do
  [[ -s $NGINX_PREFIX/live/nginx.pid ]] && break
  sleep 0.05
done

konsul kv watch nginx/ --initial --exec ./reload.sh &
children+=($!)

echo "run.sh: nginx runs in $NGINX_PREFIX and follows nginx/ of ${KONSUL_ADDR:-the local Konsul}" >&2
# Whichever ends first ends the other.
wait -n
