#!/bin/sh
# What the guest sees of itself, over HTTP: /cgi-bin/state
export PATH=/bin
printf "Content-Type: text/plain\r\n\r\n"
hostname
cpus
disks
nics
cat /proc/uptime
