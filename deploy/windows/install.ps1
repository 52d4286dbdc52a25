# Installs sense-butler as a Windows service. Everything it does can be done by hand with the same commands.
#
#   .\install.ps1                            this machine only
#   .\install.ps1 -Node 10.1.2.3, 10.1.2.4   these machines may reach the ports that the configuration opens
#
# Called again, it replaces the program by the one beside this file and keeps configuration and data.
#Requires -RunAsAdministrator
param([string[]] $Node = @())
$ErrorActionPreference = 'Stop'

$target = Join-Path $env:ProgramFiles 'sense-butler'
$data = Join-Path $env:ProgramData 'sense-butler'
$butler = Join-Path $data 'butler.yaml'
$exe = Join-Path $target 'sense-butler.exe'

function Invoke-Butler {
    & $exe @args
    if ($LASTEXITCODE -ne 0) { throw "sense-butler $args ended with exit code $LASTEXITCODE; what to do stands above." }
}

# A program that runs cannot be replaced.
if (Get-Service -Name 'sense-butler' -ErrorAction SilentlyContinue) { Stop-Service -Name 'sense-butler' }
New-Item -ItemType Directory -Force -Path $target | Out-Null
Copy-Item -Force -Path (Join-Path $PSScriptRoot 'sense-butler.exe') -Destination $exe

if (-not (Test-Path $butler)) { Invoke-Butler init --directory $data }
$nodes = @($Node | ForEach-Object { '--node'; $_ })
Invoke-Butler service install -c $butler @nodes
Invoke-Butler service start
Invoke-Butler service status
