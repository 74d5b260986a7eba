#!/bin/bash
# A Ceph of one machine for the tests: a monitor, a manager, an OSD on a sparse file, and a gateway that speaks
# S3, all on 127.0.0.1.  `make test-ceph` uses it.
#
# Usage: ceph.sh install               as root on Debian or Ubuntu: the packages that are missing
#        ceph.sh up DIR                start it, its data in DIR, which must not exist; prints the endpoint
#        ceph.sh kill|start|pause|resume DIR     the gateway: SIGKILL, start again, SIGSTOP, SIGCONT
#        ceph.sh quota DIR BYTES|off   what the tests' user may store
#        ceph.sh down DIR              end it, and remove DIR
set -euo pipefail
export LC_ALL=C

S3_PORT=${CEPH_S3_PORT:-7480}
ENDPOINT=http://127.0.0.1:$S3_PORT
USER_ID=test KEY=testkey SECRET=testsecret123 BUCKET=bucket
WAIT_SECONDS=90

say() { printf '%s\n' "ceph: $*" >&2; }

wait_for() { # seconds command...
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $until ]; then
            say "gave up waiting for: $*; the logs are in $D/log"
            return 1
        fi
        sleep 0.2
    done
}

install_packages() {
    local missing=''
    for program in ceph ceph-mon ceph-mgr ceph-osd radosgw curl openssl; do
        command -v "$program" >/dev/null 2>&1 || missing=yes
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        say 'missing; get it with: sudo apt-get install ceph-mon ceph-mgr ceph-osd radosgw ceph-common curl openssl'
        return 1
    fi
    say 'installing it, which takes a minute'
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    apt-get install -y -qq --no-install-recommends \
        ceph-mon ceph-mgr ceph-osd radosgw ceph-common curl openssl </dev/null >/dev/null
}

write_config() {
    cat >"$D/ceph.conf" <<CONF
[global]
fsid = $FSID
mon host = [v2:127.0.0.1:13300,v1:127.0.0.1:16789]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = $D/keyring
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd crush chooseleaf type = 0
osd pool default pg num = 8
osd pool default pg autoscale mode = off
mon max pg per osd = 500
mon data avail warn = 1
mon data avail crit = 1
pid file = $D/run/\$name.pid
admin socket = $D/run/\$name.asok
log file = $D/log/\$name.log
ms bind ipv6 = false
[mon]
mon data = $D/mon
[osd]
osd data = $D/osd
osd objectstore = bluestore
bluestore block size = 8589934592
bluestore block create = true
osd memory target = 939524096
[mgr]
mgr data = $D/mgr
[client.rgw]
rgw data = $D/rgw
# Without tcp_nodelay every small answer waits 44 ms for the client's delayed ACK.
rgw frontends = beast endpoint=127.0.0.1:$S3_PORT tcp_nodelay=1
rgw enable usage log = false
# A quota is looked at for each object, not for the average of the last minutes.
rgw bucket quota ttl = 0
rgw user quota bucket sync interval = 1
CONF
}

make_keys() {
    local ring=$D/keyring
    ceph-authtool -C "$ring" --gen-key -n mon. --cap mon 'allow *'
    ceph-authtool "$ring" --gen-key -n client.admin \
        --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' --cap mds 'allow *'
    ceph-authtool "$ring" --gen-key -n mgr.x --cap mon 'allow profile mgr' --cap osd 'allow *' --cap mds 'allow *'
    ceph-authtool "$ring" --gen-key -n client.rgw --cap mon 'allow rw' --cap osd 'allow rwx'
} >/dev/null

osd_is_up() { timeout 10 ceph osd stat | grep -q '1 up'; }
gateway_listens() { (: </dev/tcp/127.0.0.1/"$S3_PORT") 2>/dev/null; }

start_gateway() {
    radosgw -n client.rgw 2>/dev/null
    wait_for "$WAIT_SECONDS" gateway_listens
}

signal_gateway() { # signal
    kill "-$1" "$(cat "$D/run/client.rgw.pid")"
}

up() {
    FSID=$(cat /proc/sys/kernel/random/uuid)
    mkdir "$D"
    mkdir "$D"/{mon,mgr,osd,run,log,rgw}
    write_config
    make_keys
    monmaptool --create --addv a '[v2:127.0.0.1:13300,v1:127.0.0.1:16789]' --fsid "$FSID" "$D/monmap" >/dev/null
    ceph-mon --mkfs -i a --monmap "$D/monmap" --keyring "$D/keyring"
    ceph-mon -i a
    ceph-mgr -i x
    local uuid secret id
    uuid=$(cat /proc/sys/kernel/random/uuid)
    secret=$(ceph-authtool --gen-print-key)
    id=$(printf '{"cephx_secret": "%s"}' "$secret" | timeout 60 ceph osd new "$uuid" -i -)
    ceph-authtool "$D/keyring" -n "osd.$id" -a "$secret" >/dev/null
    ceph-osd -i "$id" --mkfs --osd-uuid "$uuid" --keyring "$D/keyring" 2>/dev/null
    ceph-osd -i "$id" 2>/dev/null
    wait_for "$WAIT_SECONDS" osd_is_up
    start_gateway
    timeout 60 radosgw-admin user create --uid=$USER_ID --display-name=$USER_ID \
        --access-key=$KEY --secret-key=$SECRET >/dev/null 2>&1
    make_bucket
    echo "$ENDPOINT"
}

make_bucket() { # signed, version 2: the only request here that needs no client
    local date signature
    date=$(date -R -u)
    signature=$(printf 'PUT\n\n\n%s\n/%s' "$date" $BUCKET | openssl dgst -sha1 -hmac $SECRET -binary | base64)
    wait_for "$WAIT_SECONDS" curl --fail --silent -X PUT "$ENDPOINT/$BUCKET" \
        -H "Date: $date" -H "Authorization: AWS $KEY:$signature"
}

quota() { # bytes or off
    if [ "$1" = off ]; then
        timeout 60 radosgw-admin quota disable --quota-scope=user --uid=$USER_ID >/dev/null 2>&1
    else
        timeout 60 radosgw-admin user stats --uid=$USER_ID --sync-stats >/dev/null 2>&1
        timeout 60 radosgw-admin quota set --quota-scope=user --uid=$USER_ID --max-size="$1" >/dev/null 2>&1
        timeout 60 radosgw-admin quota enable --quota-scope=user --uid=$USER_ID >/dev/null 2>&1
    fi
}

down() {
    # A paused or hung one ends, too; each is named by its own pid file.
    for file in "$D"/run/*.pid; do
        [ -e "$file" ] || continue
        kill -KILL "$(cat "$file")" 2>/dev/null || true
    done
    rm -rf "$D"
}

command=${1:-}
D=${2:-}
if [ "$command" = install ]; then
    install_packages
    exit
fi
if [ -z "$D" ]; then
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
export CEPH_CONF=$D/ceph.conf
case $command in
    up) up ;;
    down) down ;;
    kill) signal_gateway KILL ;;
    start) start_gateway ;;
    pause) signal_gateway STOP ;;
    resume) signal_gateway CONT ;;
    quota) quota "${3:-off}" ;;
    *) say "unknown command: $command"; exit 2 ;;
esac
