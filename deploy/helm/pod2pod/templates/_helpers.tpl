{{- define "pod2pod.name" -}}
{{- contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "pod2pod.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pod2pod.labels" -}}
{{ include "pod2pod.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "pod2pod.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "pod2pod.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- /* The port of metrics.listen, which is an address and a port. */ -}}
{{- define "pod2pod.port" -}}
{{- $listen := dig "metrics" "listen" "" .Values.config }}
{{- if not (regexMatch ":[0-9]+$" $listen) }}
{{- fail "config.metrics.listen has to be an address and a port: probes ask there whether the agent lives" }}
{{- end }}
{{- regexFind "[0-9]+$" $listen }}
{{- end }}
