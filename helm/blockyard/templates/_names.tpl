{{/* Names, labels and images. */}}

{{- define "blockyard.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels that never change for an object; call with (dict "root" $ "component" "scheduler"). */}}
{{- define "blockyard.selector" -}}
app.kubernetes.io/name: blockyard
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
blockyard/pool: {{ . }}
{{- end }}
{{- end -}}

{{/* Labels of an object; call as blockyard.selector. */}}
{{- define "blockyard.labels" -}}
{{ include "blockyard.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* registry/repository:tag, or @digest; call with an image's values. */}}
{{- define "blockyard.imageName" -}}
{{- with .registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end -}}

{{/* Likewise for images of ours, with the defaults of `image`; call with (dict "root" $ "image" .Values.scheduler.image). */}}
{{- define "blockyard.image" -}}
{{- $registry := .image.registry | default .root.Values.image.registry -}}
{{- $tag := .image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- include "blockyard.imageName" (dict "registry" $registry "repository" .image.repository "tag" $tag "digest" .image.digest) -}}
{{- end -}}

{{- define "blockyard.schedulerAccount" -}}
{{- default (printf "%s-scheduler" (include "blockyard.fullname" .)) .Values.scheduler.serviceAccount.name -}}
{{- end -}}

{{- define "blockyard.tokenSecret" -}}
{{- default (printf "%s-token" (include "blockyard.fullname" .)) .Values.token.existingSecret -}}
{{- end -}}

{{/* The name that the scheduler's certificate must have. */}}
{{- define "blockyard.tlsName" -}}
{{- default (printf "%s-scheduler" (include "blockyard.fullname" .)) .Values.tls.name -}}
{{- end -}}

{{/* Where page, API and metrics are, inside the cluster. */}}
{{- define "blockyard.httpUrl" -}}
{{ ternary "https" "http" .Values.tls.http }}://{{ include "blockyard.fullname" . }}-scheduler:{{ .Values.scheduler.service.httpPort }}
{{- end -}}

{{/* The same from inside the scheduler's own pod. */}}
{{- define "blockyard.fromInside" -}}
{{ if .Values.tls.http }}https://{{ include "blockyard.tlsName" . }}{{ else }}localhost{{ end }}:8471
{{- end -}}

{{- define "blockyard.redisSecret" -}}
{{- default (printf "%s-redis" (include "blockyard.fullname" .)) .Values.redis.auth.existingSecret -}}
{{- end -}}

{{- define "blockyard.redisUrl" -}}
{{- if .Values.redis.enabled -}}
redis://{{ include "blockyard.fullname" . }}-redis:6379/0
{{- else -}}
{{ .Values.redis.external.url }}{{ if .Values.redis.external.caSecret }}?ssl_ca_certs=/run/secrets/redis-ca/ca.crt{{ end }}
{{- end -}}
{{- end -}}

{{- define "blockyard.dataClaim" -}}
{{- if .Values.data.existingClaim -}}
{{ .Values.data.existingClaim }}
{{- else if .Values.data.create -}}
{{ include "blockyard.fullname" . }}-data
{{- end -}}
{{- end -}}
