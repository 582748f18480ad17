{{- define "blockyard.redisConf" -}}
port 6379
bind * -::*
dir /data
# The run is this log: every commit is in it before anybody hears of it.
appendonly yes
appendfsync {{ .Values.redis.appendfsync }}
# A log whose last record was cut off by a crash is read up to there.
aof-load-truncated yes
# Snapshots would only repeat the log.
save ""
# Nothing may be dropped: at the limit writes are refused, and the run waits.
maxmemory {{ .Values.redis.maxMemory }}
maxmemory-policy noeviction
{{- end -}}
