{{/* The scheduler's pod, the same in a Deployment (it stays) and a Job (it ends with the run). */}}
{{- define "blockyard.schedulerPod" -}}
{{- $name := include "blockyard.fullname" . -}}
{{- $scheme := ternary ", scheme: HTTPS" "" .Values.tls.http -}}
metadata:
  labels:
    {{- include "blockyard.labels" (dict "root" $ "component" "scheduler") | nindent 4 }}
    {{- with .Values.scheduler.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A changed pipeline starts the scheduler anew; it compares the pipeline with the run's and goes on, or says what it can't take.
    checksum/pipeline: {{ include "blockyard.pipeline" . | sha256sum }}
    checksum/scaling: {{ include "blockyard.scaling" . | sha256sum }}
    checksum/secrets: {{ include "blockyard.secretsChecksum" . }}
    {{- include "blockyard.scrapeAnnotations" . | nindent 4 }}
    {{- if and .Values.tls.http .Values.monitoring.annotations }}
    prometheus.io/scheme: https
    {{- end }}
    {{- with .Values.scheduler.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "blockyard.schedulerAccount" . }}
  automountServiceAccountToken: {{ .Values.kubernetes.enabled }}
  # A Service called like a setting would become a variable of that name.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.scheduler.gracePeriodSeconds }}
  {{- include "blockyard.pullSecrets" . | nindent 2 }}
  securityContext:
    {{- include "blockyard.ownPodSecurity" . | nindent 4 }}
  {{- if eq .Values.run.onEnd "exit" }}
  restartPolicy: Never
  {{- end }}
  {{- if .Values.tls.http }}
  # So that `kubectl exec ... blockyard status` reaches this pod under the name in its certificate.
  hostAliases: [{ip: 127.0.0.1, hostnames: [{{ include "blockyard.tlsName" . }}]}]
  {{- end }}
  containers:
    - name: scheduler
      image: {{ include "blockyard.image" (dict "root" $ "image" .Values.scheduler.image) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - scheduler
        - --pipeline=/etc/blockyard/pipeline.yaml
        - --host=0.0.0.0
        - --port=8470
        - --http-host=0.0.0.0
        - --http-port=8471
        - --redis-url={{ include "blockyard.redisUrl" . }}
        {{- if or .Values.redis.enabled .Values.redis.auth.existingSecret .Values.redis.auth.value }}
        - --redis-password-file=/run/secrets/redis/password
        {{- end }}
        {{- if .Values.tls.existingSecret }}
        - --tls-cert=/run/secrets/tls/tls.crt
        - --tls-key=/run/secrets/tls/tls.key
        {{- end }}
        {{- if .Values.tls.http }}
        - --http-tls
        {{- end }}
        # Workers that ask a standby are sent here: to the leader's own pod, as the Service would send them to any.
        - --advertise={{ if gt (int .Values.scheduler.replicas) 1 }}$(POD_IP):8470{{ else }}{{ $name }}-scheduler:{{ .Values.scheduler.service.blockPort }}{{ end }}
        - --lease-s={{ .Values.timing.lease }}
        - --grace-s={{ .Values.timing.grace }}
        - --heartbeat-s={{ .Values.timing.heartbeat }}
        - --lock-s={{ .Values.timing.lock }}
        - --log-format={{ .Values.logging.format }}
        - --log-level={{ .Values.logging.level }}
        {{- with .Values.run.request }}
        - --request={{ . }}
        {{- end }}
        {{- with .Values.run.only }}
        - --only={{ . }}
        {{- end }}
        {{- if .Values.run.acceptChanges }}
        - --accept-changes
        {{- end }}
        {{- if .Values.run.keepGoing }}
        - --keep-going
        {{- end }}
        {{- if eq .Values.run.onEnd "exit" }}
        - --exit-when-done
        {{- end }}
        {{- if .Values.kubernetes.enabled }}
        - --scaling=/etc/blockyard/scaling.yaml
        {{- end }}
      env:
        # A variable, so that `kubectl exec ... blockyard status localhost:8471` has the token too.
        - {name: BLOCKYARD_TOKEN_FILE, value: /run/secrets/blockyard/token}
        {{- if and .Values.tls.existingSecret .Values.tls.caKey }}
        - {name: BLOCKYARD_TLS_CA, value: /run/secrets/tls/ca.crt}
        {{- end }}
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: POD_NAMESPACE
          valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        {{- with .Values.scheduler.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: block, containerPort: 8470}
        - {name: http, containerPort: 8471}
      # Reading a run back from Redis may take a while; only after it do the other probes count.
      startupProbe:
        httpGet: {path: /healthz, port: http{{ $scheme }}}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: {{ div (add .Values.scheduler.startupSeconds 4) 5 }}
      # Not ready: Redis is away, or no leader is known. Never: busy.
      readinessProbe:
        httpGet: {path: /readyz, port: http{{ $scheme }}}
        periodSeconds: 5
        timeoutSeconds: 5
      # Only whether the event loop turns. A restart cures nothing else, so this is slow to judge.
      livenessProbe:
        httpGet: {path: /healthz, port: http{{ $scheme }}}
        periodSeconds: 10
        timeoutSeconds: 10
        failureThreshold: 6
      resources: {{ toJson .Values.scheduler.resources }}
      securityContext:
        {{- include "blockyard.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/blockyard, readOnly: true}
        - {name: token, mountPath: /run/secrets/blockyard, readOnly: true}
        {{- if .Values.tls.existingSecret }}
        - {name: tls, mountPath: /run/secrets/tls, readOnly: true}
        {{- end }}
        {{- if or .Values.redis.enabled .Values.redis.auth.existingSecret .Values.redis.auth.value }}
        - {name: redis-password, mountPath: /run/secrets/redis, readOnly: true}
        {{- end }}
        {{- if .Values.redis.external.caSecret }}
        - {name: redis-ca, mountPath: /run/secrets/redis-ca, readOnly: true}
        {{- end }}
        - {name: tmp, mountPath: /tmp}
        {{- with .Values.scheduler.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ $name }}-pipeline}
    - name: token
      secret:
        secretName: {{ include "blockyard.tokenSecret" . }}
        items: [{key: {{ .Values.token.key }}, path: token}]
    {{- with .Values.tls.existingSecret }}
    - name: tls
      secret:
        secretName: {{ . }}
        items:
          - {key: tls.crt, path: tls.crt}
          - {key: tls.key, path: tls.key}
          {{- with $.Values.tls.caKey }}
          - {key: {{ . }}, path: ca.crt}
          {{- end }}
    {{- end }}
    {{- if or .Values.redis.enabled .Values.redis.auth.existingSecret .Values.redis.auth.value }}
    - name: redis-password
      secret:
        secretName: {{ include "blockyard.redisSecret" . }}
        items: [{key: {{ .Values.redis.auth.key }}, path: password}]
    {{- end }}
    {{- with .Values.redis.external.caSecret }}
    - name: redis-ca
      secret:
        secretName: {{ . }}
        items: [{key: ca.crt, path: ca.crt}]
    {{- end }}
    - name: tmp
      emptyDir: {}
    {{- with .Values.scheduler.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if and (gt (int .Values.scheduler.replicas) 1) (not .Values.scheduler.affinity) }}
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "blockyard.selector" (dict "root" $ "component" "scheduler") | nindent 16 }}
  {{- end }}
  {{- include "blockyard.placement" .Values.scheduler | nindent 2 }}
{{- end -}}

{{/* What the scheduler may scale, as JSON. */}}
{{- define "blockyard.scaling" -}}
{{- $pools := dict -}}
{{- range $name, $pool := include "blockyard.pools" . | fromJson -}}
{{- $_ := set $pools $name (dict
      "deployment" (printf "%s-worker-%s" (include "blockyard.fullname" $) $name)
      "slots" $pool.slots
      "autoscale" $pool.autoscaling.enabled
      "min" $pool.autoscaling.min
      "max" $pool.autoscaling.max
      "workers" $pool.workers) -}}
{{- end -}}
{{- toPrettyJson (dict "namespace" .Release.Namespace "release" .Release.Name "pools" $pools) -}}
{{- end -}}
