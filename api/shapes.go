package api

// The model's shapes that requests and answers of the table operations share. Fields are named as the
// members are; pointers and omitempty tell missing from zero.

type attributeDefinition struct{ AttributeName, AttributeType *string }

type keySchemaElement struct{ AttributeName, KeyType *string }

type projectionShape struct {
	ProjectionType   *string
	NonKeyAttributes []string `json:",omitempty"`
}

type throughputShape struct{ ReadCapacityUnits, WriteCapacityUnits *int64 }

type onDemandShape struct {
	MaxReadRequestUnits  *int64 `json:",omitempty"`
	MaxWriteRequestUnits *int64 `json:",omitempty"`
}

type streamShape struct {
	StreamEnabled  *bool
	StreamViewType *string `json:",omitempty"`
}

type sseShape struct {
	Enabled                 *bool
	SSEType, KMSMasterKeyId *string
}

type tagShape struct{ Key, Value *string }

// indexShape is a secondary index as CreateTable, and UpdateTable's Create, have it. Global ones alone
// have throughput.
type indexShape struct {
	IndexName             *string
	KeySchema             []keySchemaElement
	Projection            *projectionShape
	ProvisionedThroughput *throughputShape
	OnDemandThroughput    *onDemandShape
	WarmThroughput        *warmShape
}

type tableDescription struct {
	AttributeDefinitions               []attributeDefinition
	TableName                          string
	KeySchema                          []keySchemaElement
	TableStatus                        string
	CreationDateTime                   seconds
	ProvisionedThroughput              throughputDescription
	TableSizeBytes                     int64
	ItemCount                          int64
	TableArn                           string
	TableId                            string
	BillingModeSummary                 *billingSummary      `json:",omitempty"`
	LocalSecondaryIndexes              []indexDescription   `json:",omitempty"`
	GlobalSecondaryIndexes             []indexDescription   `json:",omitempty"`
	StreamSpecification                *streamShape         `json:",omitempty"`
	LatestStreamLabel                  string               `json:",omitempty"`
	LatestStreamArn                    string               `json:",omitempty"`
	GlobalTableVersion                 string               `json:",omitempty"`
	GlobalTableSettingsReplicationMode string               `json:",omitempty"`
	Replicas                           []replicaDescription `json:",omitempty"`
	RestoreSummary                     *restoreDescription  `json:",omitempty"`
	SSEDescription                     *sseDescription      `json:",omitempty"`
	TableClassSummary                  *tableClassSummary   `json:",omitempty"`
	OnDemandThroughput                 *onDemandShape       `json:",omitempty"`
	WarmThroughput                     *warmShape           `json:",omitempty"`
	DeletionProtectionEnabled          bool

	DisassociationProtectionEnabled *bool `json:",omitempty"` // of a global table alone
}

type throughputDescription struct {
	LastIncreaseDateTime                                          seconds `json:",omitempty"`
	LastDecreaseDateTime                                          seconds `json:",omitempty"`
	NumberOfDecreasesToday, ReadCapacityUnits, WriteCapacityUnits int64
}

type billingSummary struct {
	BillingMode                       string
	LastUpdateToPayPerRequestDateTime seconds `json:",omitempty"`
}

type indexDescription struct {
	IndexName             string
	KeySchema             []keySchemaElement
	Projection            projectionShape
	IndexStatus           string                 `json:",omitempty"`
	Backfilling           *bool                  `json:",omitempty"`
	ProvisionedThroughput *throughputDescription `json:",omitempty"`
	OnDemandThroughput    *onDemandShape         `json:",omitempty"`
	WarmThroughput        *warmShape             `json:",omitempty"`
	IndexSizeBytes        int64
	ItemCount             int64
	IndexArn              string
}

type replicaDescription struct {
	RegionName               string
	ReplicaStatus            string
	ReplicaStatusDescription string `json:",omitempty"`
	KMSMasterKeyId           string `json:",omitempty"`
	readOverride
	WarmThroughput           *warmShape
	GlobalSecondaryIndexes   []replicaIndexDescription `json:",omitempty"`
	ReplicaTableClassSummary *tableClassSummary        `json:",omitempty"`

	GlobalTableSettingsReplicationMode string
}

type replicaIndexDescription struct {
	IndexName string
	readOverride
	WarmThroughput *warmShape
}

type restoreDescription struct {
	SourceBackupArn   string `json:",omitempty"`
	SourceTableArn    string `json:",omitempty"`
	RestoreDateTime   seconds
	RestoreInProgress bool
}

type sseDescription struct {
	Status          string
	SSEType         string `json:",omitempty"`
	KMSMasterKeyArn string `json:",omitempty"`
}

type tableClassSummary struct {
	TableClass         string
	LastUpdateDateTime seconds `json:",omitempty"`
}
