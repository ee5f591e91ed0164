package api

import "context"

// operation is one operation of the service's API.
type operation struct {
	run     func(q *request, ctx context.Context) error // nil: not there yet
	missing string                                      // why not, in a few words
}

// Reasons why an operation is not there, for clients and docs/compat.md.
const (
	noStreams      = "streams cannot be read"
	noPartiQL      = "there is no PartiQL"
	noTransactions = "there are no transactions"
	noBackupAPI    = "backups are taken and restored with the command line"
	noPITR         = "there is no point-in-time recovery"
	noExport       = "there is no export and import through S3 in DynamoDB's formats"
	noVectors      = "there are no vector indexes"
)

// streamsOperations are those of DynamoDB Streams, whose model and target are their own.
var streamsOperations = map[string]operation{
	"DescribeStream":   {missing: noStreams},
	"GetRecords":       {missing: noStreams},
	"GetShardIterator": {missing: noStreams},
	"ListStreams":      {missing: noStreams},
}

// operations are all operations of the API model, by name.
var operations = map[string]operation{
	"BatchGetItem":                        {run: batchGetItem},
	"BatchWriteItem":                      {run: batchWriteItem},
	"CreateGlobalTable":                   {run: createGlobalTable},
	"CreateTable":                         {run: createTable},
	"DeleteItem":                          {run: deleteItem},
	"DeleteResourcePolicy":                {run: deleteResourcePolicy},
	"DeleteTable":                         {run: deleteTable},
	"DescribeContinuousBackups":           {run: describeContinuousBackups},
	"DescribeContributorInsights":         {run: describeContributorInsights},
	"DescribeEndpoints":                   {run: describeEndpoints},
	"DescribeGlobalTable":                 {run: describeGlobalTable},
	"DescribeGlobalTableSettings":         {run: describeGlobalTableSettings},
	"DescribeKinesisStreamingDestination": {run: describeKinesisStreamingDestination},
	"DescribeLimits":                      {run: describeLimits},
	"DescribeTable":                       {run: describeTable},
	"DescribeTableReplicaAutoScaling":     {run: describeTableReplicaAutoScaling},
	"DescribeTimeToLive":                  {run: describeTimeToLive},
	"DisableKinesisStreamingDestination":  {run: disableKinesisStreamingDestination},
	"EnableKinesisStreamingDestination":   {run: enableKinesisStreamingDestination},
	"GetItem":                             {run: getItem},
	"GetResourcePolicy":                   {run: getResourcePolicy},
	"ListContributorInsights":             {run: listContributorInsights},
	"ListGlobalTables":                    {run: listGlobalTables},
	"ListTables":                          {run: listTables},
	"ListTagsOfResource":                  {run: listTagsOfResource},
	"PutItem":                             {run: putItem},
	"PutResourcePolicy":                   {run: putResourcePolicy},
	"Query":                               {run: query},
	"Scan":                                {run: scan},
	"TagResource":                         {run: tagResource},
	"UntagResource":                       {run: untagResource},
	"UpdateContributorInsights":           {run: updateContributorInsights},
	"UpdateGlobalTable":                   {run: updateGlobalTable},
	"UpdateGlobalTableSettings":           {run: updateGlobalTableSettings},
	"UpdateItem":                          {run: updateItem},
	"UpdateKinesisStreamingDestination":   {run: updateKinesisStreamingDestination},
	"UpdateTable":                         {run: updateTable},
	"UpdateTableReplicaAutoScaling":       {run: updateTableReplicaAutoScaling},
	"UpdateTimeToLive":                    {run: updateTimeToLive},

	"BatchExecuteStatement":     {missing: noPartiQL},
	"CreateBackup":              {missing: noBackupAPI},
	"DeleteBackup":              {missing: noBackupAPI},
	"DescribeBackup":            {missing: noBackupAPI},
	"DescribeExport":            {missing: noExport},
	"DescribeImport":            {missing: noExport},
	"ExecuteStatement":          {missing: noPartiQL},
	"ExecuteTransaction":        {missing: noPartiQL},
	"ExportTableToPointInTime":  {missing: noExport},
	"ImportTable":               {missing: noExport},
	"ListBackups":               {missing: noBackupAPI},
	"ListExports":               {missing: noExport},
	"ListImports":               {missing: noExport},
	"RestoreTableFromBackup":    {missing: noBackupAPI},
	"RestoreTableToPointInTime": {missing: noPITR},
	"SearchVectors":             {missing: noVectors},
	"TransactGetItems":          {missing: noTransactions},
	"TransactWriteItems":        {missing: noTransactions},
	"UpdateContinuousBackups":   {missing: noPITR},
}
