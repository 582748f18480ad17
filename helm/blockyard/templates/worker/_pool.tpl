{{/* What a pool's switches mean for its pods. */}}

{{- define "blockyard.workerAccount" -}}
{{- default (printf "%s-worker" (include "blockyard.fullname" .root)) .pool.serviceAccount.name -}}
{{- end -}}

{{/* Resources with the GPUs among the limits, as JSON. */}}
{{- define "blockyard.poolResources" -}}
{{- $resources := deepCopy .resources -}}
{{- if .gpus -}}
{{- $_ := set $resources "limits" (merge (dict .gpuResource (int .gpus)) ($resources.limits | default dict)) -}}
{{- end -}}
{{- toJson $resources -}}
{{- end -}}

{{/* Node selectors and the like, with the tolerations that GPU and spot nodes ask for, as JSON. */}}
{{- define "blockyard.poolPlacement" -}}
{{- $tolerations := .tolerations | default list -}}
{{- if .gpus -}}
{{- $tolerations = append $tolerations (dict "key" .gpuResource "operator" "Exists" "effect" "NoSchedule") -}}
{{- end -}}
{{- if .spot -}}
{{- $tolerations = append $tolerations (dict "key" "cloud.google.com/gke-spot" "operator" "Exists" "effect" "NoSchedule") -}}
{{- $tolerations = append $tolerations (dict "key" "kubernetes.azure.com/scalesetpriority" "operator" "Equal" "value" "spot" "effect" "NoSchedule") -}}
{{- end -}}
{{- set . "tolerations" $tolerations | toJson -}}
{{- end -}}
