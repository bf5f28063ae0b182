{{- define "stageline.name" -}}
{{- $name := ternary .Release.Name (printf "%s-stageline" .Release.Name) (contains "stageline" .Release.Name) -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "stageline.selector" -}}
app.kubernetes.io/name: stageline-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stageline.labels" -}}
{{ include "stageline.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: stageline
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "stageline.metadata" -}}
name: {{ include "stageline.name" . }}
namespace: {{ .Release.Namespace }}
labels: {{- include "stageline.labels" . | nindent 2 }}
{{- end }}

{{/* The image of one program: "stageline.image" (list . "router") */}}
{{- define "stageline.image" -}}
{{- $root := first . -}}
{{- $images := $root.Values.images -}}
{{- with $images.registry }}{{ . | trimSuffix "/" }}/{{ end -}}
{{- index $images (last .) }}:{{ $images.tag | default $root.Chart.AppVersion }}
{{- end }}

{{/* What a container of the chart's own may do. */}}
{{- define "stageline.confined" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end }}

{{/* What the operator does where it serves; tests/chart compares it with what it asks for. */}}
{{- define "stageline.rules" -}}
- apiGroups: [stageline.dev]
  resources: [pipelinedeployments]
  verbs: [list, watch]
- apiGroups: [stageline.dev]
  resources: [pipelinedeployments/status]
  verbs: [patch]
# Asked for by clusters that run the admission plugin OwnerReferencesPermissionEnforcement.
- apiGroups: [stageline.dev]
  resources: [pipelinedeployments/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods, services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
# By their names, which it knows: who may not list or watch them is told of no other.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
# One operator at a time.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [stageline-operator{{ if not .Values.namespaces }}-cluster{{ end }}]
  verbs: [get, patch]
{{- if not .Values.namespaces }}
# Which namespaces have an operator of their own: those are left to it.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [stageline-operator]
  verbs: [list, watch]
{{- end }}
{{- end }}
