@echo off
rem Starts the studio on Windows: finds the graphics card, installs the torch build that fits it into .venv (once),
rem and opens the page. "studio.bat --detect" only tells what it found; other flags go to app.py.
rem torch always comes from PyTorch's own index, because pip's default Windows build has no CUDA.
setlocal EnableExtensions EnableDelayedExpansion
cd /d "%~dp0" || exit /b 1
set "BUILDS=https://download.pytorch.org/whl"

call :detect
echo %FOUND% -^> %BUILD%%WHY%
if /i "%~1"=="--detect" exit /b 0
call :install || exit /b 1
.venv\Scripts\python.exe app.py %*
exit /b %ERRORLEVEL%

rem Sets FOUND, BUILD (cu126, cu130 or cpu) and WHY. Of several NVIDIA cards the most capable one decides.
:detect
set "CAPABILITY=0"
set "WHY="
for /f "tokens=1,2* delims=," %%a in ('nvidia-smi --query-gpu^=compute_cap^,driver_version^,name --format^=csv^,noheader 2^>nul ^| findstr /r "^[0-9]"') do call :card "%%a" "%%b" "%%c"
if %CAPABILITY% gtr 0 goto :card_build
set "FOUND=no graphics card"
for /f "delims=" %%n in ('powershell -NoProfile -Command "(Get-CimInstance Win32_VideoController).Name -join ' and '" 2^>nul') do set "FOUND=%%n"
set "BUILD=cpu"
set "WHY= (torch uses NVIDIA cards only on Windows; their driver must be installed)"
exit /b 0

rem :card "COMPUTE_CAPABILITY" " DRIVER" " NAME" keeps the most capable card.
:card
for /f "tokens=1,2 delims=." %%m in ("%~1") do set /a THIS=%%m*10+%%n
if %THIS% leq %CAPABILITY% exit /b 0
set "CAPABILITY=%THIS%"
for /f "tokens=1 delims=. " %%d in ("%~2") do set "DRIVER=%%d"
set "NAME=%~3"
set "FOUND=NVIDIA%NAME: NVIDIA=%, compute capability %~1, driver%~2"
exit /b 0

rem torch 2.13 has cu126 (compute capability 5.0 to 9.0; driver 528 and newer on Windows) and cu130 (7.5 and newer,
rem driver 580 and newer); cu132 is experimental.
:card_build
set "BUILD=cpu"
if %CAPABILITY% geq 75 if %DRIVER% geq 580 (set "BUILD=cu130" & exit /b 0)
if %CAPABILITY% geq 100 (set "WHY= (this card needs driver 580 or newer)" & exit /b 0)
if %CAPABILITY% lss 50 (set "WHY= (torch needs compute capability 5.0 or newer)" & exit /b 0)
if %DRIVER% geq 528 (set "BUILD=cu126" & exit /b 0)
set "WHY= (CUDA needs driver 528 or newer)"
exit /b 0

:find_python
set "PYTHON="
for %%p in ("py -3.12" "py -3.13" "py -3.11" "py -3.14" "python" "python3") do if not defined PYTHON (
  %%~p -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))" >nul 2>nul && set "PYTHON=%%~p"
)
if defined PYTHON exit /b 0
echo Python 3.11, 3.12, 3.13 or 3.14 is needed and none was found. 1>&2
exit /b 1

rem Installs when the pins or the build differ from what .venv was made with.
:install
if not exist .venv\Scripts\python.exe (
  call :find_python || exit /b 1
  !PYTHON! -m venv .venv || exit /b 1
)
set "INSTALLED="
if exist .venv\.installed-build set /p INSTALLED=<.venv\.installed-build
fc /b requirements.txt .venv\.installed-requirements >nul 2>nul && if "%INSTALLED%"=="%BUILD%" exit /b 0
echo Installing into .venv (once, some minutes) ...
for /f %%t in ('findstr /b "torch==" requirements.txt') do set "TORCH=%%t+%BUILD%"
.venv\Scripts\python.exe -m pip install --disable-pip-version-check --quiet --index-url %BUILDS%/%BUILD% %TORCH% || exit /b 1
.venv\Scripts\python.exe -m pip install --disable-pip-version-check --quiet -r requirements.txt || exit /b 1
copy /y requirements.txt .venv\.installed-requirements >nul || exit /b 1
(echo %BUILD%)>.venv\.installed-build
exit /b 0
