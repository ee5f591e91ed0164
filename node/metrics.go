package node

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/commutatordb/commutator/region"
)

// newMetrics returns what /metrics shows of a node. Names end in their unit.
func newMetrics(n *Node) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "commutator_" + name, Help: help}, value))
	}
	counter := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "commutator_" + name, Help: help}, value))
	}
	counter("raftlog_syncs_total", "Syncs of the Raft log.", func() float64 { return float64(n.log.Metrics().Syncs) })
	counter("raftlog_entries_total", "Entries written to the Raft log.", func() float64 { return float64(n.log.Metrics().Entries) })
	counter("raftlog_bytes_total", "Bytes written to the Raft log.", func() float64 { return float64(n.log.Metrics().Bytes) })
	gauge("raftlog_entries_per_sync", "Entries that one sync has made durable, on average.", func() float64 { return n.log.Metrics().EntriesPerSync() })
	gauge("raftlog_segment_bytes", "Size of the Raft log on disk.", func() float64 { return float64(n.log.Metrics().SegmentBytes) })
	gauge("state_disk_bytes", "Size of the state on disk.", func() float64 { return float64(n.store.Metrics().DiskBytes) })
	gauge("state_memtable_bytes", "Size of the state not flushed yet.", func() float64 { return float64(n.store.Metrics().MemTableBytes) })
	gauge("partitions", "Raft groups of the region, its catalog and every partition, of which this node has a replica.", func() float64 { return float64(n.region.Health().Here) })
	gauge("partitions_led", "Of them, those that this node leads.", func() float64 {
		held, _ := n.region.Holding()
		if own := held[n.region.NodeID()]; own != nil {
			return float64(own.Leads)
		}
		return 0
	})
	gauge("partitions_merging", "Empty partitions of the region that are on their way into their left neighbours.", func() float64 { return float64(n.region.Health().Merging) })
	gauge("partitions_moving", "Raft groups of the region that are not held yet, as this node has heard, by those that are to hold them.", func() float64 { return float64(n.region.Health().Moving) })
	gauge("partitions_under_replicated", "Of them, those with a replica on a node that is down, or one that is being filled.", func() float64 { return float64(n.region.Health().UnderReplicated) })
	gauge("partitions_leaderless", "Of them, those that nobody leads who is up: they take no writes.", func() float64 { return float64(n.region.Health().Leaderless) })
	gauge("partitions_asleep", "Partitions that have nothing to do, and send nothing to other nodes, and the catalog if it has nothing, either.", func() float64 { return float64(n.region.Asleep()) })
	merges := func(which func(done, undone int64) int64) func() float64 {
		return func() float64 { return float64(which(n.region.Merges())) }
	}
	counter("partitions_merged_total", "Empty partitions that were taken in by their left neighbours while this node led the catalog, since the start.", merges(func(done, _ int64) int64 { return done }))
	counter("partition_merges_undone_total", "Merges that were begun and given up meanwhile.", merges(func(_, undone int64) int64 { return undone }))
	counter("replicas_same_total", "Times that all replicas of a Raft group were held against each other and were the same, since the start.", func() float64 { return float64(n.region.Audits().Done) })
	counter("replicas_differ_total", "Times that not, since the start.", func() float64 { return float64(n.region.Audits().Differ) })
	counter("replicas_digested_bytes_total", "Bytes of this node's replicas read to hold them against others, since the start.", func() float64 { return float64(n.region.Audits().Digests) })
	gauge("snapshots_sending", "Snapshots of partitions that are on their way to other nodes of the region.", func() float64 { return float64(n.region.Snapshots().Sending) })
	gauge("snapshots_coming", "Snapshots of partitions that are coming from other nodes of the region.", func() float64 { return float64(n.region.Snapshots().Coming) })
	counter("snapshot_sent_bytes_total", "Bytes of snapshots sent to other nodes of the region, since the start.", func() float64 { return float64(n.region.Snapshots().SentBytes) })
	counter("snapshot_received_bytes_total", "Bytes of snapshots taken from other nodes of the region, since the start.", func() float64 { return float64(n.region.Snapshots().TakenBytes) })
	gauge("change_log_limit_bytes", "Bound on the size of the change logs: at it a region that is away is given up.", func() float64 { return float64(n.rep.retention.MaxBytes) })
	gauge("clock_fenced", "1 while this region takes no writes because its clock is ahead of most regions'.", func() float64 {
		if n.rep.fencedBy.Load() != nil {
			return 1
		}
		return 0
	})
	counter("requests_refused_at_once_total", "Requests refused, before they were read, because more is asked of the process than it has processor time for, since the start.", func() float64 { return float64(n.crowd.refused.Load()) })
	if n.security != nil {
		gauge("tls_certificate_expiry_timestamp_seconds", "When this node's certificate ends, since the Unix epoch.", n.cfg.TLS.expiry)
	}
	r.MustRegister(tableCollector{n})
	r.MustRegister(n.scrub.collectors()...)
	r.MustRegister(n.space.collectors()...)
	r.MustRegister(n.rep.verify)
	return r
}

// tableCollector shows each table and each link as they are when asked.
type tableCollector struct{ n *Node }

var (
	itemsDesc     = prometheus.NewDesc("commutator_table_items", "Items of a table in this region.", []string{"table"}, nil)
	bytesDesc     = prometheus.NewDesc("commutator_table_bytes", "Size of a table's items in this region.", []string{"table"}, nil)
	conflictsDesc = prometheus.NewDesc("commutator_conflicts_total", "Conflicts found when joining other regions' writes, since the start.", []string{"table", "class", "winner", "loser"}, nil)
	keptDesc      = prometheus.NewDesc("commutator_conflict_records", "Conflict records that this region has.", []string{"table"}, nil)
	logDesc       = prometheus.NewDesc("commutator_change_log_bytes", "Size on disk, about, of a global table's change log.", []string{"table"}, nil)
	shedDesc      = prometheus.NewDesc("commutator_conflict_records_shed_total", "Conflicts of which this region has no record for want of room.", []string{"table"}, nil)
	largeDesc     = prometheus.NewDesc("commutator_merge_state_large_total", "Times that an item was written of which more than 1 KB, and more than a tenth of the item, is kept for merging, since the start.", []string{"table"}, nil)
	lagDesc       = prometheus.NewDesc("commutator_replication_lag_seconds", "How far this region's copy of a table is behind another's.", []string{"table", "from"}, nil)
	pendingDesc   = prometheus.NewDesc("commutator_replication_pending", "Changes of this region that another has not acknowledged yet.", []string{"table", "to"}, nil)
	seededDesc    = prometheus.NewDesc("commutator_replication_seeded_items", "Items that a replica which is being filled from another has received so far.", []string{"table", "from"}, nil)
	seededOfDesc  = prometheus.NewDesc("commutator_replication_seed_items", "Items that it is to receive, as of when the copy was begun or gone on with.", []string{"table", "from"}, nil)
	seedRateDesc  = prometheus.NewDesc("commutator_replication_seed_bytes_per_second", "How fast it receives them.", []string{"table", "from"}, nil)
	offsetDesc    = prometheus.NewDesc("commutator_clock_offset_seconds", "How far another region's clock is ahead of this one's.", []string{"region"}, nil)
	heldDesc      = prometheus.NewDesc("commutator_replication_held_streams", "Streams of another region whose writes are held: they are stamped too far ahead.", []string{"region"}, nil)
	refusedDesc   = prometheus.NewDesc("commutator_signatures_refused_total", "Requests whose signature was refused, since the start.", []string{"error"}, nil)
	nodeUpDesc    = prometheus.NewDesc("commutator_node_up", "1 when another node of the region was heard of in the last second.", []string{"node"}, nil)
	votesDesc     = prometheus.NewDesc("commutator_node_replicas", "Raft groups of the region, its catalog among them, in which a node votes, as this one has heard.", []string{"node"}, nil)
	leadsDesc     = prometheus.NewDesc("commutator_node_leads", "Raft groups of the region that a node leads, as this one has heard.", []string{"node"}, nil)
	holdsDesc     = prometheus.NewDesc("commutator_node_item_bytes", "Size of the items in the partitions that a node holds, as this one has heard.", []string{"node"}, nil)
	drainedDesc   = prometheus.NewDesc("commutator_node_drained", "1 for a node of the region that is to lead nothing.", []string{"node"}, nil)
	linkDesc      = prometheus.NewDesc("commutator_region_reachable", "1 when the last exchange with another region succeeded.", []string{"region"}, nil)
)

// Describe is prometheus.Collector's.
func (c tableCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{itemsDesc, bytesDesc, conflictsDesc, keptDesc, shedDesc, logDesc, largeDesc, lagDesc, pendingDesc, seededDesc, seededOfDesc, seedRateDesc, linkDesc, nodeUpDesc, votesDesc, leadsDesc, holdsDesc, drainedDesc, offsetDesc, heldDesc, expiredDesc, refusedDesc} {
		descs <- d
	}
}

// Collect is prometheus.Collector's.
func (c tableCollector) Collect(metrics chan<- prometheus.Metric) {
	for _, t := range c.n.region.Tables() {
		d := t.Definition()
		items, bytes := t.Stats()
		name := d.Schema.Name
		metrics <- prometheus.MustNewConstMetric(itemsDesc, prometheus.GaugeValue, float64(items), name)
		metrics <- prometheus.MustNewConstMetric(bytesDesc, prometheus.GaugeValue, float64(bytes), name)
		for loss, n := range t.ConflictsFound() {
			metrics <- prometheus.MustNewConstMetric(conflictsDesc, prometheus.CounterValue, float64(n), name, string(loss.Class), loss.Winner, loss.Loser)
		}
		kept, shed := t.ConflictsKept()
		metrics <- prometheus.MustNewConstMetric(keptDesc, prometheus.GaugeValue, float64(kept), name)
		metrics <- prometheus.MustNewConstMetric(shedDesc, prometheus.CounterValue, float64(shed), name)
		if d.TTL != "" {
			metrics <- prometheus.MustNewConstMetric(expiredDesc, prometheus.CounterValue, float64(c.n.rep.countExpired(name).Load()), name)
		}
		if len(d.Replicas) > 0 {
			size, _ := c.n.rep.kept(d.GlobalID)
			metrics <- prometheus.MustNewConstMetric(logDesc, prometheus.GaugeValue, float64(size), name)
			metrics <- prometheus.MustNewConstMetric(largeDesc, prometheus.CounterValue, float64(t.LargeRecords()), name)
		}
		for to, n := range c.n.rep.Pending(d) {
			metrics <- prometheus.MustNewConstMetric(pendingDesc, prometheus.GaugeValue, float64(n), name, to)
		}
		if s := c.n.rep.Seeding(d.GlobalID); s != nil {
			metrics <- prometheus.MustNewConstMetric(seededDesc, prometheus.GaugeValue, float64(s.Items), name, s.From)
			metrics <- prometheus.MustNewConstMetric(seededOfDesc, prometheus.GaugeValue, float64(s.OfItems), name, s.From)
			metrics <- prometheus.MustNewConstMetric(seedRateDesc, prometheus.GaugeValue, float64(s.BytesPerSecond), name, s.From)
		}
		for from, lag := range c.n.rep.Lag(d.GlobalID) {
			metrics <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, lag.Seconds(), name, from)
		}
	}
	held, _ := c.n.region.Holding()
	for _, m := range c.n.region.Members() {
		if m.State == region.MemberGone {
			continue
		}
		flag := func(d *prometheus.Desc, is bool) {
			value := 0.0
			if is {
				value = 1
			}
			metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, m.Name)
		}
		if h := held[m.ID]; h != nil {
			metrics <- prometheus.MustNewConstMetric(votesDesc, prometheus.GaugeValue, float64(h.Votes), m.Name)
			metrics <- prometheus.MustNewConstMetric(leadsDesc, prometheus.GaugeValue, float64(h.Leads), m.Name)
			metrics <- prometheus.MustNewConstMetric(holdsDesc, prometheus.GaugeValue, float64(h.Bytes), m.Name)
		}
		flag(nodeUpDesc, c.n.region.Up(m.ID))
		flag(drainedDesc, m.Drained)
	}
	for reason, n := range c.n.handler.Refused() {
		metrics <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(n), reason)
	}
	for _, l := range c.n.rep.Links() {
		up := 0.0
		if l.Reachable {
			up = 1
		}
		metrics <- prometheus.MustNewConstMetric(linkDesc, prometheus.GaugeValue, up, l.Region)
		metrics <- prometheus.MustNewConstMetric(offsetDesc, prometheus.GaugeValue, l.ClockAhead.Seconds(), l.Region)
		metrics <- prometheus.MustNewConstMetric(heldDesc, prometheus.GaugeValue, float64(l.Held), l.Region)
	}
}
