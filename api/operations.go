package api

import "context"

// operation is one operation of the service's API.
type operation struct {
	run     func(q *request, ctx context.Context) error // nil: not there yet
	missing string                                      // why not, in a few words
}

// Reasons why an operation is not there, for clients and docs/compat.md.
const (
	noPartiQL      = "there is no PartiQL"
	noTransactions = "there are no transactions"
	noBackupAPI    = "backups are taken and restored with the command line"
	noPITR         = "there is no point-in-time recovery"
	noTTL          = "nothing expires"
	noLegacyGlobal = "this is version 2017.11.29 of global tables; use ReplicaUpdates of UpdateTable"
	noExport       = "there is no export and import through S3 in DynamoDB's formats"
	noKinesis      = "there is no Kinesis"
	noInsights     = "there are no contributor insights"
	noPolicies     = "there are no resource policies"
	noScaling      = "capacity is not limited, so nothing scales"
	noVectors      = "there are no vector indexes"
)

// operations are all operations of the API model, by name.
var operations = map[string]operation{
	"BatchGetItem":              {run: batchGetItem},
	"BatchWriteItem":            {run: batchWriteItem},
	"CreateTable":               {run: createTable},
	"DeleteItem":                {run: deleteItem},
	"DeleteTable":               {run: deleteTable},
	"DescribeContinuousBackups": {run: describeContinuousBackups},
	"DescribeEndpoints":         {run: describeEndpoints},
	"DescribeLimits":            {run: describeLimits},
	"DescribeTable":             {run: describeTable},
	"DescribeTimeToLive":        {run: describeTimeToLive},
	"GetItem":                   {run: getItem},
	"ListTables":                {run: listTables},
	"ListTagsOfResource":        {run: listTagsOfResource},
	"PutItem":                   {run: putItem},
	"Query":                     {run: query},
	"Scan":                      {run: scan},
	"TagResource":               {run: tagResource},
	"UntagResource":             {run: untagResource},
	"UpdateItem":                {run: updateItem},
	"UpdateTable":               {run: updateTable},

	"BatchExecuteStatement":               {missing: noPartiQL},
	"CreateBackup":                        {missing: noBackupAPI},
	"CreateGlobalTable":                   {missing: noLegacyGlobal},
	"DeleteBackup":                        {missing: noBackupAPI},
	"DeleteResourcePolicy":                {missing: noPolicies},
	"DescribeBackup":                      {missing: noBackupAPI},
	"DescribeContributorInsights":         {missing: noInsights},
	"DescribeExport":                      {missing: noExport},
	"DescribeGlobalTable":                 {missing: noLegacyGlobal},
	"DescribeGlobalTableSettings":         {missing: noLegacyGlobal},
	"DescribeImport":                      {missing: noExport},
	"DescribeKinesisStreamingDestination": {missing: noKinesis},
	"DescribeTableReplicaAutoScaling":     {missing: noScaling},
	"DisableKinesisStreamingDestination":  {missing: noKinesis},
	"EnableKinesisStreamingDestination":   {missing: noKinesis},
	"ExecuteStatement":                    {missing: noPartiQL},
	"ExecuteTransaction":                  {missing: noPartiQL},
	"ExportTableToPointInTime":            {missing: noExport},
	"GetResourcePolicy":                   {missing: noPolicies},
	"ImportTable":                         {missing: noExport},
	"ListBackups":                         {missing: noBackupAPI},
	"ListContributorInsights":             {missing: noInsights},
	"ListExports":                         {missing: noExport},
	"ListGlobalTables":                    {missing: noLegacyGlobal},
	"ListImports":                         {missing: noExport},
	"PutResourcePolicy":                   {missing: noPolicies},
	"RestoreTableFromBackup":              {missing: noBackupAPI},
	"RestoreTableToPointInTime":           {missing: noPITR},
	"SearchVectors":                       {missing: noVectors},
	"TransactGetItems":                    {missing: noTransactions},
	"TransactWriteItems":                  {missing: noTransactions},
	"UpdateContinuousBackups":             {missing: noPITR},
	"UpdateContributorInsights":           {missing: noInsights},
	"UpdateGlobalTable":                   {missing: noLegacyGlobal},
	"UpdateGlobalTableSettings":           {missing: noLegacyGlobal},
	"UpdateKinesisStreamingDestination":   {missing: noKinesis},
	"UpdateTableReplicaAutoScaling":       {missing: noScaling},
	"UpdateTimeToLive":                    {missing: noTTL},
}
