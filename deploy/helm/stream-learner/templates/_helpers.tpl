{{- define "stream-learner.name" -}}
{{- .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "stream-learner.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "stream-learner.selectorLabels" -}}
app.kubernetes.io/name: {{ include "stream-learner.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stream-learner.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "stream-learner.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "stream-learner.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "stream-learner.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "stream-learner.claimName" -}}
{{- default (printf "%s-state" (include "stream-learner.fullname" .)) .Values.persistence.existingClaim }}
{{- end }}

{{/* The worker's config: what the values say, and what only the chart can know. */}}
{{- define "stream-learner.config" -}}
{{- $chart := dict "state" "/var/lib/stream-learner" "observing" (dict "host" "0.0.0.0" "port" 9109 "log_format" "json") }}
{{- toYaml (merge $chart (deepCopy .Values.config)) }}
{{- end }}
