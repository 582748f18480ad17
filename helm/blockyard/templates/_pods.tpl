{{/* What all pods have in common. */}}

{{/* Restricted Pod Security Standard; call with (dict "user" 10001 "group" 10001 "fsGroup" 10001), null where the cluster chooses. */}}
{{- define "blockyard.podSecurity" -}}
runAsNonRoot: true
{{- if not (kindIs "invalid" .user) }}
runAsUser: {{ int .user }}
{{- end }}
{{- if not (kindIs "invalid" .group) }}
runAsGroup: {{ int .group }}
{{- end }}
{{- if not (kindIs "invalid" .fsGroup) }}
fsGroup: {{ int .fsGroup }}
# Without this, a large volume is walked file by file at each start of a pod.
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "blockyard.ownPodSecurity" -}}
{{- $ids := .Values.security -}}
{{ include "blockyard.podSecurity" (dict "user" $ids.runAsUser "group" $ids.runAsGroup "fsGroup" $ids.fsGroup) }}
{{- end -}}

{{- define "blockyard.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "blockyard.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where a pod may run; call with the values that hold nodeSelector and the like. */}}
{{- define "blockyard.placement" -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" "runtimeClassName" }}
{{- with index $ $key }}
{{ $key }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Annotations for a Prometheus without the operator. */}}
{{- define "blockyard.scrapeAnnotations" -}}
{{- if .Values.monitoring.annotations }}
prometheus.io/scrape: "true"
prometheus.io/port: "8471"
prometheus.io/path: /metrics
{{- end }}
{{- end -}}

{{/* Changes when a token or password that was given changes; generated ones never do. */}}
{{- define "blockyard.secretsChecksum" -}}
{{- list .Values.token .Values.tls (pick .Values.redis "auth" "external") | toJson | sha256sum -}}
{{- end -}}

{{/* A secret's value: the given one, the one that is in the cluster, or a new one. Call with (dict "root" $ "name" NAME "key" KEY "value" GIVEN). */}}
{{- define "blockyard.secretValue" -}}
{{- if .value -}}
{{ .value | b64enc }}
{{- else -}}
{{- $there := lookup "v1" "Secret" .root.Release.Namespace .name -}}
{{- if and $there (hasKey ($there.data | default dict) .key) -}}
{{ index $there.data .key }}
{{- else -}}
{{ randAlphaNum 40 | b64enc }}
{{- end -}}
{{- end -}}
{{- end -}}
