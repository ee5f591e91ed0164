// Package wirev1 has another name than its folder.
package wirev1
