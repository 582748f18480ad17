{{/* The pipeline, the pools and what can be wrong with them. */}}

{{/* The pipeline as JSON: YAML of helm would write 1e+06 for a million. What ends a line in YAML alone is escaped. */}}
{{- define "blockyard.pipeline" -}}
{{- $pipeline := .Values.pipeline -}}
{{- if and $pipeline (or .Values.name .Values.tasks) -}}
{{- fail "\n\nGive the pipeline once: either as 'pipeline:', or as 'name:' and 'tasks:' at the top level (a pipeline file used as a values file).\n" -}}
{{- end -}}
{{- if and (not $pipeline) (or .Values.name .Values.tasks) -}}
{{- if not .Values.name -}}
{{- fail "\n\nThe pipeline has 'tasks:' but no 'name:'. The name names the run; add one.\n" -}}
{{- end -}}
{{- $pipeline = dict "name" .Values.name "tasks" .Values.tasks -}}
{{- end -}}
{{- if not $pipeline -}}
{{- fail "\n\nThere is no pipeline. Give its file: helm install NAME CHART -f pipeline.yaml\n('name:' and 'tasks:' as 'blockyard run' takes it, or the output of 'blockyard values pipeline.yaml').\n" -}}
{{- end -}}
{{- toPrettyJson $pipeline | replace "\u0085" "\\u0085" | replace "\ufeff" "\\ufeff" -}}
{{- end -}}

{{/* The first number in a value that helm may have rounded: it keeps 53 bits of a whole one. */}}
{{- define "blockyard.rounded" -}}
{{- if kindIs "map" . -}}
{{- range $_, $item := . -}}{{- include "blockyard.rounded" $item -}}{{- end -}}
{{- else if kindIs "slice" . -}}
{{- range . -}}{{- include "blockyard.rounded" . -}}{{- end -}}
{{- else if kindIs "float64" . -}}
{{- or (and (ge . 9007199254740992.0) (lt . 1e21)) (and (le . -9007199254740992.0) (gt . -1e21)) | ternary (printf "%.0f " .) "" -}}
{{- end -}}
{{- end -}}

{{/* The pools with the defaults of `worker` filled in, as JSON. Lists of environment and volumes are put one behind the other. */}}
{{- define "blockyard.pools" -}}
{{- $pools := dict -}}
{{- range $name, $own := .Values.pools -}}
{{- $pool := mergeOverwrite (deepCopy $.Values.worker) (deepCopy ($own | default dict)) -}}
{{- range $key := list "extraEnv" "extraEnvFrom" "extraVolumes" "extraVolumeMounts" -}}
{{- $_ := set $pool $key (concat (index $.Values.worker $key | default list) (index ($own | default dict) $key | default list)) -}}
{{- end -}}
{{- $_ := set $pools $name $pool -}}
{{- end -}}
{{- toJson $pools -}}
{{- end -}}

{{/* Seconds between SIGTERM and SIGKILL of a pool. */}}
{{- define "blockyard.gracePeriod" -}}
{{- if .spot -}}{{ min .gracePeriodSeconds 25 }}{{- else -}}{{ .gracePeriodSeconds }}{{- end -}}
{{- end -}}

{{/* Stops with a sentence where values are each right but not together. */}}
{{- define "blockyard.validate" -}}
{{- $pipeline := include "blockyard.pipeline" . | fromJson -}}
{{- $pools := include "blockyard.pools" . | fromJson -}}
{{- range $task := $pipeline.tasks -}}
{{- range $key, $_ := $task.params | default dict -}}
{{- if has $key (list "true" "false") -}}
{{- fail (printf "\n\nTask '%s' has a parameter called '%s'. helm reads the bare words y, n, yes, no, on and off as true and false; write the name in quotes.\n" $task.id $key) -}}
{{- end -}}
{{- end -}}
{{- with include "blockyard.rounded" $task -}}
{{- fail (printf "\n\nTask '%s' has the number %s, or one near it: helm rounds whole numbers of more than 53 bits. Write it in quotes, and make it a number in the function.\n" $task.id (splitList " " . | first)) -}}
{{- end -}}
{{- $pool := $task.pool | default "default" -}}
{{- if not (hasKey $pools $pool) -}}
{{- fail (printf "\n\nTask '%s' wants pool '%s', which is none of 'pools:' (%s). Add it there, or change the task's pool.\n" $task.id $pool (keys $pools | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- range $name, $pool := $pools -}}
{{- if gt (int $pool.autoscaling.min) (int $pool.autoscaling.max) -}}
{{- fail (printf "\n\nPool '%s': autoscaling.min is %v, which is more than autoscaling.max, %v.\n" $name $pool.autoscaling.min $pool.autoscaling.max) -}}
{{- end -}}
{{- if $pool.task -}}
{{- $ids := list -}}
{{- range $task := $pipeline.tasks -}}{{- $ids = append $ids $task.id -}}{{- end -}}
{{- if not (has $pool.task $ids) -}}
{{- fail (printf "\n\nPool '%s' is for task '%s', which is none of the pipeline's (%s).\n" $name $pool.task ($ids | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.data.existingClaim .Values.data.create -}}
{{- fail "\n\n'data.existingClaim' names a volume that is there and 'data.create' asks for a new one; give one of them.\n" -}}
{{- end -}}
{{- if and (or .Values.redis.external.url .Values.redis.external.caSecret) .Values.redis.enabled -}}
{{- fail "\n\n'redis.external' is given, but 'redis.enabled' is true; set it to false to use the external Redis.\n" -}}
{{- end -}}
{{- if not .Values.redis.enabled -}}
{{- if not .Values.redis.external.url -}}
{{- fail "\n\n'redis.enabled' is false, so 'redis.external.url' is needed (redis://host:6379/0).\n" -}}
{{- end -}}
{{- if regexMatch "^[a-z]+://[^/@]*:[^/@]*@" .Values.redis.external.url -}}
{{- fail "\n\n'redis.external.url' holds a password, which everybody who may list pods could read. Put it into a Secret and name that in 'redis.auth.existingSecret'.\n" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "\n\n'ingress.enabled' is true, so 'ingress.host' is needed.\n" -}}
{{- end -}}
{{- if and .Values.tls.http (not .Values.tls.existingSecret) -}}
{{- fail "\n\n'tls.http' is true, so 'tls.existingSecret' is needed: the Secret with the certificate.\n" -}}
{{- end -}}
{{- if and (eq .Values.run.onEnd "exit") (gt (int .Values.scheduler.replicas) 1) -}}
{{- fail "\n\n'run.onEnd: exit' makes the scheduler a Job of one pod; 'scheduler.replicas' must be 1 then.\n" -}}
{{- end -}}
{{- if lt (float64 .Values.timing.lease) (mulf 3.0 (float64 .Values.timing.heartbeat)) -}}
{{- fail (printf "\n\n'timing.lease' is %v s and 'timing.heartbeat' %v s: a lease must last three heartbeats at least, or one lost packet ends it.\n" .Values.timing.lease .Values.timing.heartbeat) -}}
{{- end -}}
{{- end -}}
